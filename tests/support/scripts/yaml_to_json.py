"""Reads YAML from the file that is named and writes it as JSON, with NaN and the infinities as bare words."""

import json
import re
import sys

import yaml


class Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, in which `1e-05` is a text; writers mean a number."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
# Times stay the texts that they are.
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}

with open(sys.argv[1], encoding="utf-8") as file:
    json.dump(yaml.load(file, Loader), sys.stdout)
