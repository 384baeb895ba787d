"""Values in what others wrote (people, servers, files that may be damaged): each is what it looks
like, or none.
"""

from __future__ import annotations

import json
import re
from typing import Any, Optional, Union

_WHOLE = re.compile("[0-9]{1,18}")


def whole(text: Optional[str]) -> Optional[int]:
    """The whole number that a text is, in up to 18 digits of ASCII; None: it is none.

    str.isdigit takes digits that int does not, and int takes no more than 4,300.
    """
    return int(text) if text and _WHOLE.fullmatch(text) else None


def parsed(text: Union[str, bytes]) -> Any:
    """JSON. Raises ValueError, also for what is nested deeper than Python can follow."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
