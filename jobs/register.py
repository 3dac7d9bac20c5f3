"""The tables of a workspace -> names in a catalog, such as a Hive metastore, for SQL users.

Run:       spark-submit jobs/register.py --config conf/quickstart.yaml --catalog spark_catalog --schema learn
Override:  spark-submit jobs/register.py --config conf/quickstart.yaml --set catalog.metastore=thrift://host:9083
Metastore: that of spark-submit's own configuration (hive-site.xml, --conf), or catalog.metastore of the settings.
Exit code: 0 done, 1 failed (a name is taken, no metastore), 2 wrong usage or settings.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("register", sys.argv[1:]))
