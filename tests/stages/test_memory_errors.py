"""What the end of memory looks like to those that call memory_errors_alike: one class, and nothing else."""

import errno

import pytest
import torch

from stages.memory_errors import memory_errors_alike


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("could not create a memory object"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_memory_that_gave_out_is_one_class(error):
    with pytest.raises(torch.OutOfMemoryError) as caught, memory_errors_alike():
        raise error
    assert caught.value is error or caught.value.__cause__ is error
    assert str(caught.value)


def test_an_allocation_that_no_host_can_make_is_recognised():
    with pytest.raises(torch.OutOfMemoryError), memory_errors_alike():
        torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("Cannot allocate memory"),
        KeyboardInterrupt(),
    ],
)
def test_everything_else_passes_as_it_is(error):
    with pytest.raises(type(error)) as caught, memory_errors_alike():
        raise error
    assert caught.value is error
