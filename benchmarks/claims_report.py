"""What `claims.py` says of its numbers: means with 95 % bootstrap intervals, paired differences with Wilcoxon's p.

In: the numbers of every case of a section, by the case's name. Out: a list of lines for JSON and for the screen.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

import numpy as np

from stages.statistics import bootstrap_interval, paired_p

BUDGETS = (32, 64, 128, 256)
GOOD_PRIORS = ("another seed's map", "Grad-CAM")

Numbers = dict[str, float]
Cases = Mapping[str, Numbers]
Line = dict[str, object]


def planted(cases: Cases) -> list[Line]:
    """By form and ground, and over all: means, and how many boxes reach .95 for a map's own places, .6 for others."""
    groups = {"all": list(cases.values())}
    for name, numbers in cases.items():
        groups.setdefault(name.rsplit(" ", 1)[0], []).append(numbers)
    lines = []
    for group, members in groups.items():
        for pair in members[0]:
            values = column(members, pair)
            own = pair.split(" map, ")[0] == pair.split(" map, ")[1].removesuffix(" places")
            reach = (values >= 0.95) if own else (values <= 0.6)
            lines.append({**mean_of(f"{group}: {pair}", values), "reach the goal": int(reach.sum())})
    return lines


def prior(cases: Cases) -> list[Line]:
    """Means by prior and budget; a good prior with half of the evaluations, and a mirrored one, against none."""
    models = {
        "demo": [found for name, found in cases.items() if name.startswith("demo-")],
        "squeezenet": [found for name, found in cases.items() if not name.startswith("demo-")],
    }
    lines: list[Line] = []
    for model, members in models.items():
        if not members:
            continue
        lines += [mean_of(f"{model}: {name}", column(members, name)) for name in members[0]]
        for good in GOOD_PRIORS:
            for budget, twice in zip(BUDGETS, (*BUDGETS[1:], None), strict=True):
                pairs = [
                    (f"{good} @ {budget}", f"none @ {budget}"),
                    (f"{good}, mirrored @ {budget}", f"none @ {budget}"),
                ]
                pairs += [(f"{good} @ {budget}", f"none @ {twice}")] if twice else []
                lines += differences(members, pairs, model)
    return lines


def borex(cases: Cases) -> list[Line]:
    """BOREx against its own prior, over pictures and classes."""
    members = list(cases.values())
    means = [mean_of(name, column(members, name)) for name in members[0]]
    return [*means, *differences(members, [("BOREx", "prior")], "pictures")]


def time(cases: Cases) -> list[Line]:
    """Milliseconds, and each map's share of scoring and refinement."""
    (found,) = cases.values()
    scoring = found["scoring"]
    return [
        {"what": name, "ms": value, "share": 0.0 if name == "scoring" else value / (value + scoring)}
        for name, value in found.items()
    ]


SUMMARIES: dict[str, Callable[[Cases], list[Line]]] = {
    "planted": planted, "prior": prior, "borex": borex, "time": time
}  # fmt: skip


def column(members: Iterable[Numbers], name: str) -> np.ndarray:
    """One number of all cases; NaN where a case has none."""
    return np.array([found.get(name) for found in members], np.float64)


def mean_of(what: str, values: np.ndarray) -> Line:
    """A mean with its interval, and the worst and best case."""
    return {
        "what": what,
        **asdict(bootstrap_interval(values)),
        "least": float(np.nanmin(values)),
        "most": float(np.nanmax(values)),
    }


def differences(members: list[Numbers], pairs: Iterable[tuple[str, str]], model: str) -> list[Line]:
    """Paired differences; `change`: relative to the mean of the second."""
    found = []
    for one, other in pairs:
        a, b = column(members, one), column(members, other)
        line = {"what": f"{model}: {one} - {other}", **asdict(bootstrap_interval(a - b)), "p": paired_p(a, b)}
        found.append({**line, "change": float((a - b).mean() / b.mean())})
    return found


def words(lines: Iterable[Line]) -> str:
    """A line each: what, then its numbers."""
    return "\n".join(
        f"{line['what']!s:64} "
        + "  ".join(f"{name} {value:.4g}" for name, value in line.items() if isinstance(value, float | int))
        for line in lines
    )
