//! Slack's format: `text` for notifications, blocks for the eye.

use serde_json::{Value, json};

use super::alert::{About, Alert, State};

/// Slack refuses longer texts (3000) and more blocks (50).
const MAX_TEXT: usize = 2800;
const MAX_ALERTS: usize = 20;

/// One message for all of them.
pub fn slack(alerts: &[&Alert], about: &About, num_rows: usize) -> Value {
    let sentences: Vec<String> = alerts.iter().map(|alert| sentence(alert)).collect();
    let mut text = format!("[{}] {}", escaped(&about.project), sentences.join("; "));
    cut(&mut text);
    let mut blocks = Vec::new();
    for alert in alerts.iter().take(MAX_ALERTS) {
        let mut body = format!("{} {}", emoji(alert), sentence(alert));
        let rows = &alert.condition.rows[..alert.condition.rows.len().min(num_rows)];
        if !rows.is_empty() {
            // a code block ends at three backticks
            body.push_str(&format!("\n```{}```", escaped(&rows.join("\n")).replace("```", "'''")));
        }
        cut(&mut body);
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": body}}));
    }
    if alerts.len() > MAX_ALERTS {
        let more = format!("and {} more", alerts.len() - MAX_ALERTS);
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": more}}));
    }
    let mut context = vec![format!("*{}*", escaped(&about.project))];
    if let Some(alert) = alerts.first() {
        context.push(match alert.run_id {
            Some(run_id) => format!("`{}`, run {run_id}", alert.command),
            None => format!("`{}`", alert.command),
        });
        context.push(format!("since {}", alert.since));
    }
    context.extend(about.lake.as_deref().map(escaped));
    let mut context = context.join(" · ");
    cut(&mut context);
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": context}]}));
    json!({"text": text, "blocks": blocks})
}

fn sentence(alert: &Alert) -> String {
    let title = escaped(&alert.condition.title);
    match alert.state {
        State::Resolved => format!("resolved: {title} (open since {})", alert.since),
        State::Firing | State::Notice => title,
    }
}

fn emoji(alert: &Alert) -> &'static str {
    match (alert.state, alert.condition.severity()) {
        (State::Resolved, _) => ":large_green_circle:",
        (_, "error") => ":red_circle:",
        _ => ":large_yellow_circle:",
    }
}

/// Slack's three control characters.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let is_code_open = text[..end].matches("```").count() % 2 == 1;
        text.truncate(end);
        text.push('…');
        if is_code_open {
            text.push_str("```");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::conditions;

    fn alert(title: &str, rows: Vec<String>) -> Alert {
        let mut condition = conditions::of_watch("odd", rows.len(), rows);
        condition.title = title.to_owned();
        Alert {
            state: State::Notice,
            condition,
            since: "2025-08-01T00:00:00Z".to_owned(),
            time: "2025-08-01T00:00:00Z".to_owned(),
            run_id: Some(7),
            command: "run".to_owned(),
        }
    }

    #[test]
    fn texts_are_escaped_and_fit() {
        let about = About { project: "p".to_owned(), lake: None };
        let one = alert("<!channel> & more", vec!["```<b>".to_owned()]);
        let told = slack(&[&one], &about, 3);
        assert_eq!(told["text"], "[p] &lt;!channel&gt; &amp; more");
        let body = told["blocks"][0]["text"]["text"].as_str().unwrap();
        assert!(body.ends_with("\n```'''&lt;b&gt;```"), "{body}");

        let long = alert("é", vec!["ü".repeat(5000)]);
        let many: Vec<&Alert> = std::iter::repeat_n(&long, 60).collect();
        let told = slack(&many, &about, 3);
        assert!(told["blocks"].as_array().unwrap().len() <= 50);
        for block in told["blocks"].as_array().unwrap() {
            let text = block["text"]["text"].as_str().unwrap_or_default();
            assert!(text.len() <= 3000, "{}", text.len());
            assert_eq!(text.matches("```").count() % 2, 0, "{text}");
        }
        assert_eq!(told["blocks"][20]["text"]["text"], "and 40 more");
    }
}
