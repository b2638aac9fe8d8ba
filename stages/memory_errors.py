"""How the end of memory looks: one class for a device and for the host, for the libraries that torch works with."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# torch's allocators of host memory, CUDA's libraries, oneDNN and C++ have no exception class of their own in Python.
_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "could not create a memory object",
    "std::bad_alloc",
    "Cannot allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


@contextmanager
def memory_errors_alike() -> Iterator[None]:
    """What says that memory gave out, on a device or on the host, leaves the block as torch.OutOfMemoryError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (MemoryError, OSError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(str(error) or "the host has no memory left") from error


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)
