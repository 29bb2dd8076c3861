"""Publishes the same rows twice, in turns: `medallion publish --full`, and the official Python driver as its
documentation shows it (`execute_concurrent_with_args`, 128 requests in flight). Prints rows per second of client CPU
(user and system, the whole process for medallion, only the loading for Python) and the ratio.

usage: python_driver.py MEDALLION PROJECT LAKE ADDRESS PORT KEYSPACE ROUNDS

The rows are those that medallion published, read back first, so both write the same values to tables of the same
definition; Python's are in KEYSPACE_python.
"""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import ConsistencyLevel, tuple_factory


def of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def of_ours():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def medallion(binary, project, lake, address, port, *arguments):
    """CPU and wall seconds, and how many rows it says that it wrote."""
    command = [binary, "--quiet", "--format", "json", "--project", project, "--lake", lake]
    environment = dict(os.environ, MEDALLION_CASSANDRA=f"{address}:{port}")
    cpu, wall = of_children(), time.monotonic()
    told = subprocess.run([*command, *arguments], env=environment, stdout=subprocess.PIPE, check=True).stdout
    cpu, wall = of_children() - cpu, time.monotonic() - wall
    return cpu, wall, sum(mart["rows"] for mart in json.loads(told))


def main():
    binary, project, lake, address, port, keyspace, rounds = sys.argv[1:]
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc="datacenter1")),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        row_factory=tuple_factory,
        request_timeout=60,
    )
    session = Cluster(
        [address], port=int(port), execution_profiles={EXEC_PROFILE_DEFAULT: profile}
    ).connect()
    medallion(binary, project, lake, address, port, "publish")

    copy = f"{keyspace}_python"
    session.execute(f"drop keyspace if exists {copy}")
    session.execute(
        f"create keyspace {copy} with replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    )
    marts = []
    for file in sorted(pathlib.Path(project, "cql", "tables").glob("*.cql")):
        session.set_keyspace(copy)
        session.execute(file.read_text().strip().rstrip(";"))
        answer = session.execute(f"select * from {keyspace}.{file.stem}")
        columns = answer.column_names
        rows = list(answer)
        markers = ", ".join("?" * len(columns))
        insert = session.prepare(f"insert into {file.stem} ({', '.join(columns)}) values ({markers})")
        marts.append((insert, rows))
    num_rows = sum(len(rows) for _, rows in marts)

    measured = {"medallion": [], "python": []}
    for _ in range(int(rounds)):
        cpu, wall, published = medallion(binary, project, lake, address, port, "publish", "--full")
        if published != num_rows:
            sys.exit(f"medallion published {published} rows, the tables hold {num_rows}")
        measured["medallion"].append((cpu, wall))
        cpu, wall = of_ours(), time.monotonic()
        for insert, rows in marts:
            execute_concurrent_with_args(session, insert, rows, concurrency=128, raise_on_first_error=True)
        measured["python"].append((of_ours() - cpu, time.monotonic() - wall))

    print(f"| {num_rows} rows, {rounds} rounds, medians | client CPU, s | wall, s | rows per CPU second |")
    print("|---|---:|---:|---:|")
    rate = {}
    for name, label in (("medallion", "`medallion publish --full`"), ("python", "Python driver, 128 in flight")):
        cpu = statistics.median(cpu for cpu, _ in measured[name])
        wall = statistics.median(wall for _, wall in measured[name])
        rate[name] = num_rows / cpu
        print(f"| {label} | {cpu:.2f} | {wall:.2f} | {rate[name]:,.0f} |")
    print(f"\nratio {rate['medallion'] / rate['python']:.1f} (wanted: at least 12)")


main()
