//! Where columns come from, as the queries say.

use serde_json::Value;

use crate::mini;
use crate::support::{Done, medallion, plain, reference_lake, repository};

fn lineage(arguments: &[&str]) -> Done {
    Done::of(medallion().arg("--project").arg(repository()).arg("lineage").args(arguments).output().unwrap())
}

#[test]
fn a_column_is_followed_up_to_landing_through_every_hop() {
    let up = lineage(&["gold.finops_daily_usage.total_cost_usd"]).ok();
    for text in [
        "gold.finops_daily_usage.total_cost_usd\n",
        "  silver.usage_events.cost_usd_increment\n",
        "bronze.usage_events.cost_usd_increment\n",
        "landing.usage_events.cost_usd_increment\n",
    ] {
        assert!(up.contains(text), "`{text}` is missing in:\n{up}");
    }
    assert!(!up.contains("carbon_kg"), "other columns are not its sources:\n{up}");
    // through a window and an aggregate of lists, over two models
    let z = lineage(&["silver.usage_events.anomaly_score"]).ok();
    assert!(
        z.contains("silver.cost_baselines.mean") && z.contains("accepted.usage_events.cost_usd_increment"),
        "{z}"
    );
    // reference tables are sources too
    let region = lineage(&["silver.usage_events.region"]).ok();
    assert!(region.contains("reference.region_codes."), "{region}");
}

#[test]
fn a_column_is_followed_down_to_what_it_ends_up_in() {
    let down = lineage(&["bronze.usage_events.genai_tokens", "--down"]).ok();
    assert!(down.contains("gold.genai_usage_daily.total_tokens"), "{down}");
    assert!(!down.contains("total_cost_usd"), "{down}");
    let tables = lineage(&["silver.nps_surveys", "--down"]).ok();
    assert_eq!(tables, "silver.nps_surveys\n  silver.org_holdings\n    gold.org_profile\n");
}

#[test]
fn every_form_is_what_it_says() {
    let json: Value = lineage(&["gold.revenue_monthly", "--as", "json"]).json();
    let edge = serde_json::json!({"from": "silver.billing_monthly", "to": "gold.revenue_monthly"});
    assert!(json["edges"].as_array().unwrap().contains(&edge), "{json}");
    let down: Value = lineage(&["silver.billing_monthly", "--down", "--as", "json"]).json();
    assert!(down["edges"].as_array().unwrap().contains(&edge), "edges go with the data: {down}");
    let picture = lineage(&["--as", "mermaid"]).ok();
    assert!(picture.starts_with("flowchart LR\n") && picture.contains("[\"gold.org_profile\"]"), "{picture}");
    let events = lineage(&["--as", "openlineage"]).ok();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let revenue = events.iter().find(|event| event["job"]["name"] == "gold.revenue_monthly").unwrap();
    let fields = &revenue["outputs"][0]["facets"]["columnLineage"]["fields"];
    let inputs = fields["credits_applied_usd"]["inputFields"].as_array().unwrap();
    assert!(
        inputs.iter().any(|input| input["name"].as_str().unwrap().ends_with("/silver/billing_monthly")
            && input["field"] == "credits"),
        "{fields}"
    );
    let list = lineage(&[]).ok();
    assert!(list.contains("gold.carbon_daily ← "), "{list}");
}

#[test]
fn unknown_names_list_the_known() {
    lineage(&["gold.nothing"]).expect(2).tells(&["gold.nothing", "gold.revenue_monthly"]);
    lineage(&["gold.revenue_monthly.nothing"]).expect(2).tells(&["net_revenue_usd"]);
    lineage(&["revenue"]).expect(2);
    // and a project of other tables has its own
    let place = mini::place();
    let up = place.medallion(&["lineage", "gold.total.amount"]).ok();
    assert!(up.contains("landing.readings.amount"), "{up}");
}

/// Explains rows of a mart of the reference lake; the amount must add up to the column, over as many lines as counted.
#[track_caller]
fn assert_explained(
    mart: &str,
    key: &[&str],
    amount: &str,
    column: &str,
    count: Option<&str>,
    condition: &str,
) {
    let (place, _) = reference_lake();
    let keys: Vec<String> = key.iter().map(|name| format!("cast({name} as text) as {name}")).collect();
    let counted = count.map_or_else(|| "null".to_owned(), |count| format!("cast({count} as bigint)"));
    let rows = place.sql(&format!(
        "select {}, cast({column} as text) as amount, {counted} as n from gold.{mart} where {condition} order by {} limit 1",
        keys.join(", "),
        key.join(", ")
    ));
    assert!(!rows.is_empty(), "{mart} has no row to explain");
    for row in rows {
        let values: Vec<String> = key.iter().map(|name| format!("{name}={}", plain(&row[*name]))).collect();
        let table = format!("gold.{mart}");
        let mut arguments = vec!["--format", "json", "explain-row", &table, "--limit", "100000"];
        arguments.extend(values.iter().map(String::as_str));
        let told = place.medallion(&arguments).json();
        assert_eq!(told["not_followed"].as_array().unwrap().len(), 0, "{mart} {values:?}: {told}");
        let sources = told["behind"].as_array().unwrap();
        let behind = sources.iter().find(|behind| !behind["money"][amount].is_null());
        let behind = behind.unwrap_or_else(|| panic!("{mart} {values:?}: {told}"));
        assert_eq!(behind["money"][amount], row["amount"], "{mart} {values:?}");
        assert!(
            behind["adds_up_to"][amount].as_array().unwrap().contains(&column.into()),
            "{mart} {values:?}"
        );
        if count.is_some() {
            assert_eq!(behind["num_lines"], row["n"], "{mart} {values:?}");
        }
        // and the lines are landed lines that silver knows under that file and line
        for line in behind["lines"].as_array().unwrap().iter().take(1) {
            let there = format!(
                "select count(*) from {} where source_file = '{}' and source_line = {}",
                plain(&behind["table"]),
                plain(&line["file"]),
                line["line"]
            );
            assert_eq!(place.value(&there), "1");
        }
    }
}

#[test]
fn the_lines_behind_a_row_add_up_to_it() {
    let daily = ["org_id", "usage_date", "service"];
    let some = "total_cost_usd <> 0";
    assert_explained(
        "finops_daily_usage",
        &daily,
        "cost_usd_increment",
        "total_cost_usd",
        Some("event_count"),
        some,
    );
    assert_explained("genai_usage_daily", &daily[..2], "cost_usd_increment", "total_cost_usd", None, some);
    let summary = ["org_id", "summary_date", "service"];
    assert_explained(
        "org_service_cost_summary",
        &summary,
        "cost_usd_increment",
        "cost_14d",
        None,
        "cost_14d > 1",
    );
    let month = ["org_id", "billing_month"];
    let invoices = Some("invoice_count");
    assert_explained(
        "revenue_monthly",
        &month,
        "cost_usd",
        "gross_revenue_usd",
        invoices,
        "gross_revenue_usd <> 0",
    );
    assert_explained(
        "org_profile",
        &["org_id"],
        "cost_usd_increment",
        "lifetime_cost_usd",
        None,
        "lifetime_cost_usd > 0",
    );
}

#[test]
fn an_anomaly_is_explained_by_its_anomalous_events_only() {
    let (place, _) = reference_lake();
    let anomalies = place.value("select count(*) from gold.cost_anomaly");
    if anomalies != "0" {
        let daily = ["org_id", "usage_date", "service"];
        let count = Some("anomaly_count");
        assert_explained("cost_anomaly", &daily, "cost_usd_increment", "anomalous_cost_usd", count, "true");
    }
}

/// As `--format json` has values everywhere: a decimal is a text, since readers make doubles of numbers.
#[test]
fn an_explained_row_has_the_types_of_its_columns() {
    let place = mini::place();
    std::fs::write(
        place.project.join("sql/gold/total.sql"),
        "select site, cast(sum(amount) as decimal(38, 6)) as amount, count(*) as days, \
         cast(count(*) as double) / 2 as half, count(*) > 1 as is_many, cast(null as text) as nothing, \
         max(day) as newest from gold.daily group by site\n",
    )
    .unwrap();
    place.land(&mini::batches().concat());
    place.run();
    let told = place.medallion(&["--format", "json", "explain-row", "gold.total", "site=north"]).json();
    let expected = place.sql("select * from gold.total where site = 'north'").remove(0);
    assert_eq!(told["row"], expected);
    assert_eq!(
        told["row"],
        serde_json::json!({
            "site": "north", "amount": "7.500000", "days": 2, "half": 1.0, "is_many": true, "nothing": null,
            "newest": "2025-08-02"
        })
    );
    let text = place.medallion(&["explain-row", "gold.total", "site=north"]).ok();
    assert!(text.contains("  days = 2\n") && text.contains("  amount = 7.500000\n"), "{text}");
}

#[test]
fn rows_that_are_not_there_or_not_one_are_told() {
    let (place, _) = reference_lake();
    let ask = |arguments: &[&str]| place.medallion(&[&["explain-row"], arguments].concat());
    ask(&["gold.carbon_daily", "org_id=nobody"]).expect(2).tells(&["no row"]);
    ask(&["gold.carbon_daily", "org_id=org_a"]).expect(2).tells(&["several rows", "usage_date"]);
    ask(&["gold.carbon_daily", "usage_date=soon"]).expect(2).tells(&["no value of `usage_date`"]);
    ask(&["gold.carbon_daily", "nothing=1"]).expect(2).tells(&["no column `nothing`"]);
    ask(&["bronze.users", "user_id=1"]).expect(2).tells(&["no stored model"]);
    let told =
        ask(&["silver.users", &format!("user_id={}", place.value("select min(user_id) from silver.users"))])
            .ok();
    assert!(told.contains("1 lines of `users`"), "{told}");
}
