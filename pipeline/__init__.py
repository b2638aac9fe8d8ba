"""The machinery of heatreel, and its Python door: `from pipeline import explain`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from stages.records import Explanation

__all__ = ["explain"]


def explain(
    source: "str | PathLike[str] | list[str]",
    model: str = "demo",
    *,
    target: str = "top1",
    budget: int = 256,
    method: str = "gp",
    out: "str | PathLike[str] | None" = None,
    **overrides: object,
) -> "list[Explanation]":
    """Explain sources with a model; the same as `heatreel explain`, with the arrays in memory.

    `overrides` are settings with `__` for the dot: `explain("a.mp4", score__substrate="freeze", seed=3)`. The run
    folder is kept where `out` says, else it is temporary. Raises ExplainError when nothing could be explained.
    """
    from pipeline.memory import keep_freed_memory

    keep_freed_memory()  # before the libraries that api.py imports begin threads
    from pipeline.api import explain_in_memory

    settings = {name.replace("__", "."): value for name, value in overrides.items()}
    given = {"model.name": model, "target": target, "budget": budget, "method": method, **settings}
    sources = source if isinstance(source, list) else [str(source)]
    return explain_in_memory(sources, given, out)
