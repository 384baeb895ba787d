"""A report's data as one HTML page that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Mapping

from omnikit import report_more_sections as more
from omnikit import report_sections as first
from omnikit.errors import ActionError
from omnikit.render import TEMPLATES
from omnikit.report_blocks import mood
from omnikit.report_words import words

_SECTIONS = (
    *(first.overview, first.topology, first.state, first.instances, first.checks),
    *(first.timeline, more.releases, more.audit, more.versions, more.rank_tables),
    *(more.settings, more.benchmarks, more.profiles, more.log_errors),
)


def page(data: Mapping[str, Any], language: str = "en") -> str:
    """The page. data: see report_data.collect. Every value is escaped."""
    import jinja2
    from markupsafe import Markup

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    made.filters["mood"] = mood
    made.filters["svg"] = Markup  # of report_svg, which escapes what it puts in
    t = words(language)
    return made.get_template("environment_report.html.j2").render(
        language="zh-Hans" if language == "zh" else "en",
        t=t,
        data=data,
        sections=[section(data, t) for section in _SECTIONS],
        style=Markup((TEMPLATES / "environment_report.css").read_text(encoding="utf-8")),
    )


def write(path: Path, text: str) -> None:
    """Write a page whole, for its owner alone. Raises ActionError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise ActionError(
            f"the report cannot be written: {error.strerror}.",
            where=str(path),
            todo="choose another place: --out FILE",
        ) from error
