"""Options that several commands share."""

import click

use_case_option = click.option("--use-case", "use_case", required=True, help="Folder below feature_repo.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
