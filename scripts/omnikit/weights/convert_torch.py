"""The same conversion of rows on a torch device: bit for bit what the CPU's kernels make."""

from __future__ import annotations

import threading
from typing import Any, Optional

import numpy as np

from omnikit.errors import ActionError, InputError
from omnikit.weights import convert_rows
from omnikit.weights.convert_layout import COPY
from omnikit.weights.meter import size_text

_SMALLEST = 2.0**-126  # as kernels.SMALLEST
_turn = threading.Lock()


def arithmetic(device: str) -> Any:
    """What stands for the module kernels on a device, such as "cuda".

    Raises InputError: no torch, no device.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "torch is not installed in this Python.",
            where="weights.device",
            todo="use --device cpu, or install a torch for your device",
        ) from error
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"{device} cannot be used: {_first_line(error)}",
            where="weights.device",
            todo="use --device cpu",
        ) from error
    return _Arithmetic(torch, device)


def converter(given: Any) -> Any:
    """convert_rows.convert with the arithmetic of a device."""

    def convert(
        rows: convert_rows.Rows, block: Optional[tuple[int, int]], scales: Any, source: int
    ) -> convert_rows.Made:
        if rows.piece.what == COPY:
            return convert_rows.convert(rows, block, scales, source)
        try:
            return convert_rows.convert(rows, block, scales, source, given)
        except RuntimeError as error:  # all of torch's
            raise _failed(error, given.device, rows) from error

    return convert


def _failed(error: RuntimeError, device: str, rows: convert_rows.Rows) -> ActionError:
    """A device that gave up in the middle; what is done is kept."""
    what, todo = f"{device}: {_first_line(error)}", "look at the device's driver"
    if "OutOfMemory" in type(error).__name__:
        what = f"{device} has too little memory free for {size_text(rows.size)} at once"
        todo = "end what else uses the device (nvidia-smi)"
    return ActionError(
        f"{rows.piece.source.name}: {what}.",
        where=rows.piece.source.file,
        todo=f"{todo}, or use --device cpu; then run again: what is done is kept",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Arithmetic:
    """Stands for the module kernels."""

    def __init__(self, torch: Any, device: str) -> None:
        self.torch = torch
        self.device = device

    def _values(self, source: Any, factors: Any, block: Any, first: int) -> Any:
        """float32 [rows, columns] on the device."""
        torch = self.torch
        bits = torch.from_numpy(source).to(self.device)
        value = bits.view(torch.float8_e4m3fn).to(torch.float32)
        rows, columns = source.shape
        picked = factors[(first + np.arange(rows)) // block[0]]
        factor = torch.from_numpy(picked).to(self.device)
        return value * factor.repeat_interleave(block[1], dim=1)[:, :columns]

    def _quantise(self, value: Any, target: Any, scales: Any) -> int:
        torch = self.torch
        largest = value.abs().amax(dim=1)
        bad = (~torch.isfinite(largest)).nonzero()
        if len(bad):
            return int(bad[0])
        scale = largest / torch.tensor(127.0, device=self.device)
        scale = torch.where(scale < _SMALLEST, torch.ones_like(scale), scale)
        target[:] = torch.round(value / scale[:, None]).to(torch.int8).cpu().numpy()
        scales[:] = scale.cpu().numpy()
        return -1

    def quantise_fp8(
        self, source: Any, factors: Any, block: Any, first: int, target: Any, scales: Any
    ) -> int:
        """As kernels.quantise_fp8."""
        with _turn:
            return self._quantise(self._values(source, factors, block, first), target, scales)

    def quantise_bf16(self, source: Any, target: Any, scales: Any) -> int:
        """As kernels.quantise_bf16."""
        torch = self.torch
        with _turn:
            words = torch.from_numpy(source.view(np.int16)).to(self.device)
            return self._quantise(words.view(torch.bfloat16).to(torch.float32), target, scales)

    def widen_fp8(self, source: Any, factors: Any, block: Any, first: int, target: Any) -> int:
        """As kernels.widen_fp8."""
        torch = self.torch
        with _turn:
            value = self._values(source, factors, block, first)
            bad = (~torch.isfinite(value).all(dim=1)).nonzero()
            if len(bad):
                return int(bad[0])
            words = value.to(torch.bfloat16).view(torch.int16).cpu().numpy()
            target[:] = words.view(np.uint16)
        return -1
