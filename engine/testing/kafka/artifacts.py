"""Apache Kafka and Debezium's connectors as jars in the user's cache, resolved by Maven.

    python -m engine.testing.kafka.artifacts

resolves them once; nothing else here ever reaches for a network. It needs `java` (17 or later) and `mvn`, and only
Python's standard library, so it runs before anything is installed. CONCORD_TEST_KAFKA_LIB names a folder of jars to
take instead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KAFKA_VERSION = "4.1.1"
"""The one that Debezium 3.5 is built against (`version.kafka` of its parent)."""
DEBEZIUM_VERSION = "3.5.0.Final"
RESOLVE_SECONDS_MAX = 900
JARS = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.kafka", "connect-runtime", KAFKA_VERSION),
    ("org.apache.kafka", "connect-json", KAFKA_VERSION),
    ("io.debezium", "debezium-connector-postgres", DEBEZIUM_VERSION),
    ("io.debezium", "debezium-connector-mariadb", DEBEZIUM_VERSION),
    ("io.debezium", "debezium-connector-mysql", DEBEZIUM_VERSION),
    ("io.debezium", "debezium-connector-jdbc", DEBEZIUM_VERSION),
    ("org.slf4j", "slf4j-simple", "1.7.36"),
)
# Drivers of databases that no test has.
LEFT_OUT = (("com.oracle.database.jdbc", "ojdbc11"), ("com.microsoft.sqlserver", "mssql-jdbc"))
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
COMMAND = "python -m engine.testing.kafka.artifacts"


def jars_directory() -> Path:
    """Where the jars are or would be. Other versions are another folder."""
    chosen = os.environ.get("CONCORD_TEST_KAFKA_LIB")
    if chosen:
        return Path(chosen)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "concord-test" / f"kafka-{hashlib.sha256(_project().encode()).hexdigest()[:12]}"


def what_is_missing() -> str | None:
    """Why no cluster can be started here, with the next command; None where one can."""
    if shutil.which("java") is None:
        return "java is not installed; Kafka and Debezium need Java 17 or later"
    if shutil.which("openssl") is None:
        return "openssl is not installed; it makes the certificates of the broker's TLS listeners"
    if not any(jars_directory().glob("kafka_*.jar")):
        return f"the jars of Kafka and Debezium are not in {jars_directory()}; resolve them with `{COMMAND}`"
    return None


def resolve() -> Path:
    """Have Maven copy the jars into `jars_directory()` unless they are there, all or none; return the folder.

    Raises RuntimeError with the end of Maven's output where it fails.
    """
    directory = jars_directory()
    if directory.exists():
        return directory
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("mvn is not installed; it resolves the jars of Kafka and Debezium")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="resolving-", dir=directory.parent) as name:
        project = Path(name)
        (project / "pom.xml").write_text(_project())
        command = [maven, "-q", "-B", COPY_GOAL, "-DincludeScope=runtime", "-DoutputDirectory=lib"]
        run = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=RESOLVE_SECONDS_MAX)
        if run.returncode:
            raise RuntimeError(f"Maven could not resolve Kafka and Debezium:\n{(run.stdout + run.stderr)[-3000:]}")
        # Somebody else may have been as far a moment ago.
        if not directory.exists():
            (project / "lib").rename(directory)
    return directory


def _project() -> str:
    excluded = "".join(
        f"<exclusion><groupId>{group}</groupId><artifactId>{name}</artifactId></exclusion>" for group, name in LEFT_OUT
    )
    wanted = "\n".join(
        f"    <dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>"
        f"<exclusions>{excluded}</exclusions></dependency>"
        for group, name, version in JARS
    )
    return f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>concord</groupId>
  <artifactId>test-cluster</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{wanted}
  </dependencies>
</project>
"""


if __name__ == "__main__":
    try:
        resolve()
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(str(error))
    missing = what_is_missing()
    if missing is not None:
        sys.exit(missing)
    print(jars_directory())
