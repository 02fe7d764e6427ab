"""`pickaxe methods`: from package metadata alone; no plugin, NumPy or gRPC is imported."""

from __future__ import annotations

import click

from pickaxe import catalog
from pickaxe_services.cli import console


@click.command("methods")
@click.option("--role", type=click.Choice(catalog.ROLES), help="Only methods that fill this role.")
@click.option("--long", "-l", is_flag=True, help="Paper and summary too (imports every method).")
@click.option("--server", metavar="ADDR", help="The methods of a server, e.g. 127.0.0.1:50051.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per method.")
def command(role: str | None, long: bool, server: str | None, as_json: bool) -> None:
    """List the installed methods.

    \b
      pickaxe methods --role scorer
      pickaxe methods --long
    """
    listed = _remote(server) if server else dict(catalog.table())
    listed = {name: entry for name, entry in sorted(listed.items()) if role is None or role in entry[0]}
    more = _long(listed, server) if long else {}
    if as_json:
        for name, (roles, distribution) in listed.items():
            console.emit({"name": name, "roles": roles, "distribution": distribution, **more.get(name, {})})
        return
    columns = ["method", "roles", "distribution", *(("paper", "summary") if long else ())]
    console.table(
        columns,
        [
            (name, ", ".join(roles), distribution, *more.get(name, {}).values())
            for name, (roles, distribution) in listed.items()
        ],
    )


Listing = dict[str, tuple[tuple[str, ...], str]]


def _remote(server: str) -> Listing:
    from pickaxe_services import connect

    with connect(server) as client:
        return dict(client.methods())


def _long(listed: Listing, server: str | None) -> dict[str, dict[str, str]]:
    from pickaxe.errors import PickaxeError
    from pickaxe_services.cli.door import describe

    found = {}
    for name in listed:
        try:
            card = describe(name, server)
            found[name] = {"paper": card.paper, "summary": card.summary}
        except PickaxeError as error:
            found[name] = {"paper": "", "summary": f"error: {error.message}"}
    return found
