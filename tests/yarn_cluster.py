"""A YARN of Hadoop's mini cluster: ``python -m tests.yarn_cluster CONF_FOLDER SETTINGS``, until its input ends."""

import json
import os
import sys
from pathlib import Path

from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway


def main(conf: Path, settings: dict[str, str]) -> None:
    """Start it in the current folder, and write its yarn-site.xml to ``conf``."""
    options = ["-Xmx500m", f"-Dtest.build.data={Path.cwd()}", "--add-opens=java.base/java.lang=ALL-UNNAMED"]
    port = launch_gateway(classpath=os.environ["YARN_CLASSPATH"], javaopts=options, die_on_exit=True)
    java = JavaGateway(gateway_parameters=GatewayParameters(port=port)).jvm
    configuration = java.org.apache.hadoop.yarn.conf.YarnConfiguration()
    for name, value in settings.items():
        configuration.set(name, value)
    cluster = java.org.apache.hadoop.yarn.server.MiniYARNCluster("tests", 2, 1, 1)
    cluster.init(configuration)
    cluster.start()
    text = java.java.io.StringWriter()
    cluster.getConfig().writeXml(text)
    temporary = conf / "yarn-site.new"
    temporary.write_text(text.toString(), encoding="utf-8")
    temporary.rename(conf / "yarn-site.xml")
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
