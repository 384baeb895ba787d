"""Stand-ins for what vllm-ascend imports of an NPU's software, so that its checks run without one.

Nothing is computed with them: the plugin's checks of a configuration only ask what there is.
install() comes before any import of vllm or torch_npu.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Optional, Sequence
from unittest.mock import MagicMock

ROOTS = ("torch_npu", "acl", "mooncake")


class _Stub(ModuleType):
    """A module that has every name, but for those that Python itself asks for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, made)
        return made


class _Stubs(MetaPathFinder, Loader):
    """Finds the modules below ROOTS, however deep."""

    def find_spec(
        self, name: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        if name.partition(".")[0] not in ROOTS:
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Have the stand-ins found, and torch know the device as torch_npu would make it."""
    sys.meta_path.insert(0, _Stubs())
    import torch

    torch.utils.rename_privateuse1_backend("npu")
    torch.npu = MagicMock(name="torch.npu")
    torch.npu.is_available.return_value = False
    torch.npu.current_device.return_value = 0
    torch.version.cann = None
    torch.distributed.is_hccl_available = lambda: True
