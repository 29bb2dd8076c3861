"""The stream's peer: Spark Structured Streaming over the same landing files, as its guide has it: file source with a schema,
watermark, dropDuplicatesWithinWatermark, Parquet. It types and deduplicates; it has no quarantine, history, marts or balance.
Its state store is RocksDB, which its guide advises for many keys.

usage: spark_peer.py LANDING_FOLDER OUT_FOLDER FILES_PER_TRIGGER
    takes in the files of the folder that it has not seen (OUT_FOLDER keeps its checkpoint); prints seconds from the query's
    start to its end, and how many rows there are more
"""
import os
import sys
import time

from pyspark.sql import SparkSession

landing, out, files = sys.argv[1], sys.argv[2], int(sys.argv[3])
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.memory", "8g")
    .config(
        "spark.sql.streaming.stateStore.providerClass",
        "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
    )
    .config("spark.sql.session.timeZone", "UTC")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")
schema = """event_id string, timestamp timestamp, org_id string, resource_id string, service string, region string,
    metric string, value string, unit string, cost_usd_increment string, schema_version int, carbon_kg double"""
events = (
    spark.readStream.schema(schema)
    .option("maxFilesPerTrigger", files)
    .json(landing)
    .withWatermark("timestamp", "2 days")
    .dropDuplicatesWithinWatermark(["event_id"])
    .selectExpr("*", "cast(cost_usd_increment as decimal(18, 6)) as cost", "to_date(timestamp) as date")
)
def rows():
    return spark.read.parquet(f"{out}/table").count() if os.path.isdir(f"{out}/table") else 0


before = rows()
begun = time.time()
query = (
    events.writeStream.format("parquet")
    .option("path", f"{out}/table")
    .option("checkpointLocation", f"{out}/checkpoint")
    .partitionBy("date")
    .trigger(availableNow=True)
    .start()
)
query.awaitTermination()
took = time.time() - begun
print(f"{took:.2f} {rows() - before}")
