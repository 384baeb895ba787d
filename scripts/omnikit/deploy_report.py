"""What a deployment says at its end: where the time went, the checks, and how to use it."""

from __future__ import annotations

from omnikit import smoke_test
from omnikit.deployment import Deployment
from omnikit.errors import ActionError
from omnikit.log import say, table
from omnikit.progress import Progress


def report(
    deployment: Deployment,
    checks: list[smoke_test.Check],
    done: dict[str, dict[str, str]],
    progress: Progress,
    as_json: bool,
) -> None:
    """Print it. done: what was done to nodes ("changed"), source and packages, by name.

    Raises ActionError when a check has failed.
    """
    plan, settings = deployment.plan, deployment.config.settings
    passed = all(check.passed for check in checks)
    changed = any(done.values())
    if changed and len(plan.hosts) > 1:
        say(progress.timeline.as_text())
    rows = [["ok" if c.passed else "FAILED", c.name, c.found] for c in checks]
    if rows:
        say(table(rows, ["", "check", "found"]))
    if passed and checks:
        progress.say(f"{plan.environment} is ready" + ("" if changed else ": nothing to change"))
    elif passed:
        progress.say("the servers are ready; the proxy was not asked for")
    progress.timeline.write(
        "result",
        environment=plan.environment,
        url=smoke_test.base_url(plan),
        **done,
        ready=passed,
        checks=[check.as_dict() for check in checks],
        timeline=str(progress.timeline.file),
    )
    if not passed:
        raise ActionError(
            "the servers are up but do not serve as they should, see the checks above.",
            todo="look at: invoke status, invoke logs",
        )
    if checks and not as_json:
        proxy = f", proxy: {deployment.proxy_kind}" if deployment.proxy_kind else ""
        print(f"serving {plan.served_name} at {smoke_test.base_url(plan)}{proxy}\ntry it:")
        print(f"  {smoke_test.curl_line(plan, settings)}")
        completion = next(check for check in checks if check.name == "completion")
        print(f"it answered: {completion.found}")
