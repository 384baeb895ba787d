"""A report's data as one HTML page that needs nothing else: no network, no script, no font."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from omnikit import out_file, report_notes
from omnikit import report_more_sections as more
from omnikit import report_sections as first
from omnikit import report_state as now
from omnikit.errors import ActionError
from omnikit.render import TEMPLATES
from omnikit.report_blocks import mood, printable
from omnikit.report_words import Words, words

_SECTIONS = (
    *(first.overview, first.topology, now.state, now.instances, now.checks),
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
    clean = printable(_named(data, t))
    notes = [report_notes.said(note, t) for note in clean["notes"]]
    return made.get_template("environment_report.html.j2").render(
        language="zh-Hans" if language == "zh" else "en",
        t=t,
        data=clean,
        notes=notes,
        sections=[section(clean, t) for section in _SECTIONS],
        style=Markup((TEMPLATES / "environment_report.css").read_text(encoding="utf-8")),
    )


def _named(data: Mapping[str, Any], t: Words) -> dict[str, Any]:
    """The data with the names of steps in the reader's language."""
    found = data["timeline"]
    if not found:
        return dict(data)
    named = {
        key: [{**one, "step": t.known(one["step"])} for one in found[key]]
        for key in ("steps", "spans", "critical_path")
    }
    return {**data, "timeline": {**found, **named}}


def write(path: Path, text: str) -> None:
    """Write a page whole, for its owner alone. Raises ActionError."""
    try:
        out_file.write(path, text)
    except OSError as error:
        raise ActionError(
            f"the report cannot be written: {error.strerror}.",
            where=str(path),
            todo="choose another place: --out FILE",
        ) from error
