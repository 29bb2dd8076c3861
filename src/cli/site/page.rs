//! The frame: head, navigation by zone, search, and the views one after the other. Without JavaScript the page is one long
//! document; the script shows one view at a time.

use super::html::{Element, Markup, anchor, asset, el, link, prose, text};
use super::picture::{self, ZONES, title_of};
use super::plot::grouped;
use super::words::{bytes, stats, time};
use super::{Site, contract, dictionary, runs, serving, trends};
use crate::project::sql::TableName;
use crate::zone;

const STYLE: &str = include_str!("assets/site.css");
const SCRIPT: &str = include_str!("assets/site.js");

/// The views that are about all tables.
const PAGES: [(&str, &str); 5] = [
    ("overview", "Overview"),
    ("contract", "Contract"),
    ("questions", "Questions"),
    ("runs", "Runs"),
    ("trends", "Trends"),
];

/// The whole page.
pub fn document(site: &Site) -> String {
    let body = body(site);
    // Whoever puts a text into the page cannot know this, for it follows from all of the page, that text included.
    let nonce = &blake3::hash(body.inside().as_bytes()).to_hex()[..32];
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'"
    );
    let head = el("head")
        .add(el("meta").set("charset", "utf-8"))
        .add(el("meta").set("http-equiv", "Content-Security-Policy").set("content", policy))
        .add(el("meta").set("name", "viewport").set("content", "width=device-width, initial-scale=1"))
        .add(el("meta").set("name", "color-scheme").set("content", "light dark"))
        .add(el("meta").set("name", "referrer").set("content", "no-referrer"))
        .add(el("title").text(&site.project.name))
        .add(asset("style", nonce, STYLE));
    let body = body.add(asset("script", nonce, SCRIPT));
    let page: Markup = el("html").set("lang", "en").add(head).add(body).into();
    format!("<!doctype html>\n{}\n", page.as_str())
}

fn body(site: &Site) -> Element {
    el("body")
        .add(el("a").class("skip").set("href", "#main").text("Skip to the content"))
        .add(header(site))
        .add(navigation(site))
        .add(el("main").set("id", "main").add_all(views(site)).add(footer(site)))
}

fn header(site: &Site) -> Element {
    let search = el("div")
        .class("search")
        .set("role", "search")
        .add(el("label").class("unseen").set("for", "search").text("Search tables, columns and questions"))
        .add(
            el("input")
                .set("id", "search")
                .set("type", "search")
                .set("placeholder", "Search tables, columns, questions")
                .set("autocomplete", "off")
                .set("spellcheck", "false")
                .set("aria-controls", "results"),
        )
        .add(el("kbd").set("aria-hidden", "true").text("/"));
    el("header")
        .class("top")
        .add(el("h1").class("brand").add(link("overview", &site.project.name)))
        .add(search)
        .add(el("label").class("menu").set("for", "menu").text("Contents"))
}

fn navigation(site: &Site) -> Markup {
    let pages = PAGES.iter().map(|(id, title)| el("li").add(link(id, title)));
    let mut nav = el("nav")
        .class("side")
        .set("aria-label", "Contents")
        .add(
            el("div")
                .set("id", "results")
                .flag("hidden")
                .add(el("p").set("id", "found").set("role", "status"))
                .add(el("ul").class("found")),
        )
        .add(el("ul").class("pages").add_all(pages));
    for zone in ZONES {
        let tables: Vec<TableName> = site.tables_of(zone);
        if tables.is_empty() {
            continue;
        }
        let title = el("h2")
            .class(format!("z-{zone}"))
            .text(title_of(zone))
            .add(el("span").class("count").text(tables.len()));
        let tables = tables.iter().map(|table| el("li").add(link(table, &table.table)));
        nav = nav.add(title).add(el("ul").add_all(tables));
    }
    // a box that is ticked to open the contents where they do not fit beside the page: it needs no script
    let mut all = Markup::from(
        el("input")
            .class("unseen")
            .set("type", "checkbox")
            .set("id", "menu")
            .set("aria-label", "Show the contents"),
    );
    all.push(nav);
    all
}

fn views(site: &Site) -> Vec<Element> {
    let mut views = vec![
        overview(site),
        contract::contract(site),
        serving::questions(site),
        runs::runs(site),
        trends::trends(site),
    ];
    let project = site.project;
    views.extend(project.sources.iter().map(|source| dictionary::source(site, source)));
    views.extend(project.references.iter().map(|reference| dictionary::reference(site, reference)));
    for zone in [zone::SILVER, zone::GOLD] {
        let models = project.models.iter().filter(|model| model.table.schema == zone);
        views.extend(models.map(|model| dictionary::model(site, model)));
    }
    views
}

fn overview(site: &Site) -> Element {
    let project = site.project;
    let count = |zone: &str| project.models.iter().filter(|model| model.table.schema == zone).count();
    let mut numbers = vec![
        ("sources", project.sources.len().to_string()),
        ("silver tables", count(zone::SILVER).to_string()),
        ("gold tables", count(zone::GOLD).to_string()),
        ("questions", project.questions.len().to_string()),
    ];
    if let Some(facts) = &site.facts {
        let landed: u64 = facts.sources.values().map(|source| source.landed).sum();
        let refused: u64 = facts.sources.values().flat_map(|source| source.quarantined.values()).sum();
        let size: i64 = facts.tables.values().map(|table| table.total.bytes).sum();
        numbers.push(("landed records", grouped(landed)));
        numbers.push(("in quarantine", grouped(refused)));
        numbers.push(("size of the lake", bytes(size)));
    }
    let last = site.facts.as_ref().and_then(|facts| facts.runs.last());
    let state = match last {
        Some(run) => el("div").add(runs::summary(run)).add(el("p").add(link("runs", "The whole report"))),
        None => runs::no_lake(),
    };
    dictionary::view("overview", "page", text(&project.name))
        .add(el("p").class("lead").add(prose(&project.description)))
        .add(stats(numbers))
        .add(el("h3").set("id", "lineage").text("Lineage"))
        .add(el("p").class("note wide-only").text(
            "From landed files to serving tables. Point at a table to see what it comes from and what it ends up in; select it \
             for its section.",
        ))
        .add(picture::whole(&site.atlas, site.facts.as_ref()))
        .add(el("details").add(el("summary").text("The picture in words")).add(picture::in_words(&site.atlas)))
        .add(el("h3").text("Last run"))
        .add(state)
}

fn footer(site: &Site) -> Element {
    let newest =
        site.facts.as_ref().and_then(|facts| facts.tables.values().map(|table| table.committed).max());
    let told = match newest {
        Some(newest) => format!("The lake as of its commit of {}.", time(newest * 1000)),
        None => "Made without a lake.".to_owned(),
    };
    el("footer")
        .add(el("p").text(told).text(" Made by ").add(el("code").text("medallion docs --html")).text("."))
        .add(
            el("p").class("script-only").add(
                el("a")
                    .set("href", "#everything")
                    .set("id", anchor("everything"))
                    .text("Everything on one page, to read or print"),
            ),
        )
}
