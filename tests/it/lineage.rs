//! Where columns come from, as the queries say.

use serde_json::Value;

use crate::mini;
use crate::support::{Done, medallion, repository};

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
    assert_eq!(tables, "silver.nps_surveys\n  gold.org_profile\n");
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
        inputs.iter().any(|input| input["name"] == "silver.billing_monthly" && input["field"] == "credits"),
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
