//! What is asked: the serving tables, and the questions with example answers.

use super::Site;
use super::atlas::SERVING;
use super::dictionary::view;
use super::facts::Answer;
use super::html::{Element, Heading, Markup, anchor, cell, el, link, prose, row, table, text};
use super::plot::grouped;
use super::sql;
use super::words::{duration, facts_list};
use crate::project::Question;
use crate::project::sql::TableName;

/// The part of a gold table's section that tells how Cassandra holds it.
pub fn of_mart(site: &Site, gold: &TableName) -> Option<Element> {
    let mart = site.project.marts.iter().find(|mart| mart.gold() == *gold)?;
    let clustering: Vec<String> = mart
        .table
        .clustering
        .iter()
        .map(|(column, is_descending)| format!("{column}{}", if *is_descending { " descending" } else { "" }))
        .collect();
    let lives = match mart.table.ttl {
        Some(seconds) => duration(i64::from(seconds) * 1_000_000),
        None => "for good".to_owned(),
    };
    let asked = site.project.questions.iter().filter(|question| question.table == mart.name);
    let questions: Vec<Element> =
        asked.map(|question| el("li").add(link(question_id(question), &question.title))).collect();
    let mut list = vec![
        ("partition key", text(mart.table.partition_key.join(", "))),
        ("order", text(clustering.join(", "))),
        ("a row lives", text(lives)),
    ];
    if !questions.is_empty() {
        list.push(("questions", el("ul").class("plain").add_all(questions).into()));
    }
    let name = TableName::new(SERVING, &mart.name);
    Some(
        el("div")
            .set("id", anchor(&name))
            .set("data-find", "serving")
            .set("data-name", &name)
            .add(el("h3").text("In Cassandra"))
            .add(facts_list(list))
            .add(sql::shown(&mart.ddl, |_| false))
            .add(sql::shown(&mart.insert.text, |_| false)),
    )
}

fn question_id(question: &Question) -> String {
    format!("question.{}", question.name)
}

/// All questions.
pub fn questions(site: &Site) -> Element {
    let lead = "What the marts are for. Each question reads one serving table by its key; without a Cassandra, gold \
                answers the same: `medallion query NAME --param NAME=VALUE`.";
    let page = view("questions", "page", text("Questions")).add(el("p").class("lead").add(prose(lead)));
    page.add_all(site.project.questions.iter().map(|question| one(site, question)))
}

fn one(site: &Site, question: &Question) -> Element {
    let id = anchor(question_id(question));
    let gold = TableName::new(crate::zone::GOLD, &question.table);
    let parameters = question.parameters.iter().map(|(name, parameter)| {
        let default = match &parameter.default {
            Some(query) => sql::shown(query, |table| site.has(table)),
            None => text("must be given"),
        };
        row(
            el("code").text(name),
            [
                cell(el("code").text(&parameter.type_name)),
                cell(prose(&parameter.description)).class("prose"),
                cell(default),
            ],
        )
    });
    let headings = ["parameter", "type", "meaning", "default"].map(Heading::Text);
    let parameters = (!question.parameters.is_empty())
        .then(|| table(format!("Parameters of {}", question.name), headings, parameters));
    el("article")
        .class("question")
        .set("id", &id)
        .set("data-find", "question")
        .set("data-name", &question.name)
        .set("aria-labelledby", format!("{id}--title"))
        .add(el("h3").set("id", format!("{id}--title")).text(&question.title))
        .add(
            el("p")
                .class("note")
                .add(el("code").text(format!("medallion query {}", question.name)))
                .text(" reads ")
                .add(link(&gold, &gold)),
        )
        .add(parameters)
        .add(el("h4").text("CQL"))
        .add(sql::shown(&question.cql, |_| false))
        .add(
            el("details")
                .add(el("summary").text("The same for gold, in SQL"))
                .add(sql::shown(&question.gold_sql, |table| site.has(table))),
        )
        .add(el("h4").text("Example"))
        .add(example(site, question))
}

fn example(site: &Site, question: &Question) -> Markup {
    let answer = site.facts.as_ref().and_then(|facts| facts.answers.get(&question.name));
    let (parameters, names, rows, num_rows) = match answer {
        None => return el("p").class("note").text("No lake, no answer.").into(),
        Some(Answer::None(why)) => return el("p").class("note").text(format!("Not answered: {why}")).into(),
        Some(Answer::Rows { parameters, names, rows, num_rows }) => (parameters, names, rows, *num_rows),
    };
    let is_number = |at: usize| {
        let is_number = |value: &str| value.is_empty() || value.parse::<f64>().is_ok();
        !rows.is_empty() && rows.iter().all(|row| is_number(&row[at]))
    };
    let numbers: Vec<bool> = (0..names.len()).map(is_number).collect();
    let headings = names.iter().zip(&numbers).map(|(name, is_number)| match is_number {
        true => Heading::Number(name),
        false => Heading::Text(name),
    });
    let shown = rows.iter().map(|row| {
        let cells = row.iter().zip(&numbers).map(|(value, is_number)| {
            let cell = cell(text(value));
            if *is_number { cell.class("n") } else { cell }
        });
        el("tr").add_all(cells).into()
    });
    let given: Vec<String> = parameters.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let told = match num_rows > rows.len() {
        true => format!("The first {} of {} rows", rows.len(), grouped(num_rows)),
        false => crate::telemetry::counted(num_rows, "row"),
    };
    let told = match given.is_empty() {
        true => format!("{told}."),
        false => format!("{told}, for {}.", given.join(", ")),
    };
    let mut all = Markup::from(el("p").class("note").text(told));
    all.push(table(format!("Example answer of {}", question.name), headings, shown));
    all
}
