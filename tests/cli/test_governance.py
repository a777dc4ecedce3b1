"""Goal: those who decide about data can read, in a document made of the files, who owns what and what flows where.

Method: the CRM's customers and the ERP's debtors, as commands show them.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.support import concord


def test_each_flow_is_told_with_its_tables_owner_and_rule(folder: Path) -> None:
    (there, back) = json.loads(concord(folder, "flows", "--json").output)["flows"]
    assert (there["source"], there["target"]) == ("crm", "erp")
    assert (back["source"], back["target"]) == ("erp", "crm")
    assert (there["source_tables"], there["target_tables"]) == (["customers"], ["debtors"])
    for flow in (there, back):
        assert flow["entity"] == "customer"
        assert flow["how"] == "as it happens"
        assert sum(one["fields"] for one in flow["decided"]) == flow["fields"] > 0
    assert concord(folder, "flows", "--format", "json").output == concord(folder, "flows", "--json").output


def test_a_system_that_is_only_written_to_gives_nothing(folder: Path) -> None:
    path = folder / "concord.toml"
    path.write_text(path.read_text().replace("[systems.erp]\n", '[systems.erp]\nmode = "receive"\n'))
    (flow,) = json.loads(concord(folder, "flows", "--json").output)["flows"]
    assert (flow["source"], flow["target"]) == ("crm", "erp")
    path.write_text(path.read_text().replace("[systems.crm]\n", '[systems.crm]\nmode = "receive"\n'))
    assert "nothing flows" in concord(folder, "flows").output


def test_the_dictionary_is_a_page_with_where_each_field_is_kept(folder: Path) -> None:
    page = concord(folder, "dictionary", "--format", "md").output
    assert "\n## customer\n" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| name |")]
    assert "crm: customers.name; erp: debtors.name1" in row
    widths = {line.count(" | ") for line in page.splitlines() if line.startswith("| ")}
    assert len(widths) == 1, "every row of the table has every column"


def test_flows_are_a_page_too(folder: Path) -> None:
    lines = concord(folder, "flows", "--format", "md").output.splitlines()
    assert lines[0] == "# What flows where"
    assert lines[4].startswith("| customer | crm (customers) | erp (debtors) | as it happens | ")
