"""The real Prometheus with the deployment's configuration and rules, in a hurry."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml
from support.deployment import DEPLOY, tool
from support.servers import free_port

from radserve_server.neighbour import Neighbour

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MONITORING = DEPLOY / "monitoring"
# Words of PromQL that stand where a metric could, other than functions.
_WORDS = {"and", "or", "unless", "offset", "bool"}


class Prometheus(Neighbour):
    """A Prometheus as in ``deploy/monitoring``, which asks twice a second.

    Args:
        folder: Of its own.
        targets: ``host:port`` by the job's name.
    """

    name = "Prometheus"

    def __init__(self, folder: Path, targets: Mapping[str, str]) -> None:
        super().__init__(folder)
        self._targets = targets
        self._url = f"127.0.0.1:{free_port()}"

    def write(self) -> None:
        """Write the deployed configuration with these targets and short periods."""
        config = yaml.safe_load((_MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        for job in config["scrape_configs"]:
            for discovery in ("dns_sd_configs", "file_sd_configs", "static_configs"):
                job.pop(discovery, None)
            job["static_configs"] = [{"targets": [self._targets[job["job_name"]]]}]
        (self.folder / "prometheus.yml").write_text(json.dumps(config))
        rules = re.sub(r"^    interval: .*\n", "", (_MONITORING / "rules.yml").read_text(), flags=re.MULTILINE)
        (self.folder / "rules.yml").write_text(rules)

    def command(self) -> list[str]:
        """The program and its arguments."""
        own = [f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data"]
        return [tool("prometheus"), *own, f"--web.listen-address={self._url}", "--log.level=error"]

    def query(self, expression: str) -> list[dict[str, str]]:
        """The labels of each series that an expression gives now; the expression must be valid."""
        result = self._read("query", query=expression)["result"]
        return [one["metric"] for one in result] if isinstance(result, list) and result else []

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with their health and last error; none while it starts."""
        try:
            return [rule for group in self._read("rules")["groups"] for rule in group["rules"]]
        except OSError:
            return []

    def _read(self, path: str, **values: str) -> Any:
        with urlopen(f"http://{self._url}/api/v1/{path}?{urlencode(values)}", timeout=10) as answer:
            return json.load(answer)["data"]


def selectors(expression: str) -> set[str]:
    """What an expression reads: names of metrics, with their matchers."""
    bare = re.sub(r"\b(by|on|group_left) *\([^)]*\)", "", expression)
    found = re.findall(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(?![\w:])(?! *\()(\{[^}]*\})?", bare)
    return {name + matchers for name, matchers in found if name not in _WORDS}
