"""The served front page: the written one with a panel of what works now."""

from __future__ import annotations

from markupsafe import Markup

from learn_spark.core.tables.workspace import Workspace
from learn_spark.report.templates import POLICY, environment
from learn_spark.report.ui.live import Live, as_html

# Where the panel comes in a written page; a page of an older version has no such place. No text of a page can have
# these characters: all are escaped.
PLACE = '<main id="content" tabindex="-1">\n'


def page_mark(workspace: Workspace) -> str:
    """A mark of the written front page, which changes when it is written again; "" where there is none."""
    entry = (workspace.place / "reports" / "index.html").entry()
    return "" if entry is None else f"{entry.changed_ns}-{entry.size}"


def with_panel(page: str, now: Live, mark: str) -> str:
    """The written page with the panel. The policy in its head, which allows no script, gives way to the server's."""
    return page.replace(POLICY, "", 1).replace(PLACE, PLACE + _panel(now, mark), 1)


def alone(name: str, now: Live) -> str:
    """The panel alone, for a workspace without a front page."""
    return environment().get_template("ui/alone.html.jinja").render(name=name, panel=Markup(_panel(now, "")))


def _panel(now: Live, mark: str) -> str:
    template = environment().get_template("ui/panel.html.jinja")
    return template.render(now=now, rest=Markup(as_html(now)), page=mark)
