//! The columns of a table: type, key, how often null, meaning, where the values come from and what they end up in.

use std::collections::BTreeSet;

use super::Site;
use super::atlas::shown_as;
use super::html::{Heading, Markup, anchor, cell, el, prose, table, text};
use super::nulls::Nulls;
use super::plot::grouped;
use crate::project::lineage::ColumnName;
use crate::project::model::Model;
use crate::project::source::Source;
use crate::project::sql::TableName;
use crate::type_name::type_name;
use crate::zone;

/// Links to columns that are shown without being opened.
const FEW: usize = 3;

/// A row of the table before its links.
struct Column<'a> {
    name: &'a str,
    ty: String,
    is_key: bool,
    /// Of bronze: what becomes of a record that lacks it.
    missing: Option<Markup>,
    meaning: Markup,
}

/// The declared columns of a source, and those that arrival adds.
pub fn of_source(site: &Site, source: &Source, name: &TableName) -> Markup {
    let layout = &source.layout;
    let declared = layout.columns.iter().enumerate().map(|(at, column)| {
        let (missing, is_key) = match (layout.key.contains(&at), layout.required.contains(&at)) {
            (true, _) => (refused("missing_key"), true),
            (_, true) => (refused("missing_required"), false),
            _ => (text("null"), false),
        };
        let meaning = prose(&source.column_descriptions[at]);
        Column { name: &column.name, ty: column.ty.to_string(), is_key, missing: Some(missing), meaning }
    });
    let bronze = source.bronze_schema();
    let added = bronze.fields().iter().skip(layout.columns.len()).map(|field| Column {
        name: field.name(),
        ty: type_name(field.data_type()),
        is_key: false,
        missing: Some(Markup::default()),
        meaning: el("em").text("added on arrival").into(),
    });
    // landing has no columns of its own to come from
    let headings = ["column", "type", "where missing", "null", "meaning", "ends up in"];
    shown(site, name, &headings, declared.chain(added))
}

fn refused(error: &str) -> Markup {
    el("code").text(error).into()
}

/// The columns of a table of silver or gold.
pub fn of_model(site: &Site, model: &Model) -> Markup {
    let columns = model.schema.fields().iter().map(|field| Column {
        name: field.name(),
        ty: type_name(field.data_type()),
        is_key: model.key.contains(field.name()),
        missing: None,
        meaning: model.column_descriptions.get(field.name()).map(|text| prose(text)).unwrap_or_default(),
    });
    let headings = ["column", "type", "null", "meaning", "comes from", "ends up in"];
    shown(site, &model.table, &headings, columns)
}

fn shown<'a>(
    site: &Site,
    name: &TableName,
    headings: &[&str],
    columns: impl Iterator<Item = Column<'a>>,
) -> Markup {
    let nulls = site.facts.as_ref().and_then(|facts| facts.nulls.get(&name.to_string()));
    // without a lake nobody knows how often a value is null
    let headings = headings.iter().filter(|heading| nulls.is_some() || **heading != "null");
    let rows = columns.map(|column| row(site, name, column, nulls));
    let mut all = Markup::from(table(
        format!("Columns of {name}"),
        headings.map(|heading| Heading::Text(heading)),
        rows,
    ));
    if let Some(nulls) = nulls {
        let of = match &nulls.newest {
            Some(first) => format!("the newest {} rows, from {first} on", grouped(nulls.rows)),
            None => format!("all {} rows", grouped(nulls.rows)),
        };
        all.push(el("p").class("note").text(format!("How often a value is null was counted over {of}.")));
    }
    all
}

fn row(site: &Site, table: &TableName, column: Column, nulls: Option<&Nulls>) -> Markup {
    let name = ColumnName { table: table.clone(), column: column.name.to_owned() };
    let key = column.is_key.then(|| el("span").class("key-mark").set("title", "part of the key").text("key"));
    let mut cells = el("tr")
        .set("id", anchor(&name))
        .set("data-find", "column")
        .set("data-name", &name)
        .add(el("th").set("scope", "row").add(el("code").text(column.name)).add(key))
        .add(cell(el("code").text(column.ty)));
    let is_landed = column.missing.is_some();
    if let Some(missing) = column.missing {
        cells = cells.add(cell(missing));
    }
    if let Some(nulls) = nulls {
        cells = cells.add(cell(text(nulls.share(column.name))).class("one-line"));
    }
    cells = cells.add(cell(column.meaning).class("prose"));
    if !is_landed {
        let sources = site.atlas.lineage.columns.get(&name);
        cells = cells.add(cell(sources.map(|sources| links(site, sources.iter()))));
    }
    cells.add(cell(links(site, ends(site, &name).into_iter()))).into()
}

/// The columns that are computed from a column.
fn ends<'a>(site: &'a Site, name: &ColumnName) -> BTreeSet<&'a ColumnName> {
    let readers = |name: &ColumnName| site.atlas.readers.get(name).into_iter().flatten();
    let mut ends = BTreeSet::new();
    for reader in readers(name) {
        // what is decided over bronze keeps its columns: whoever reads them reads bronze's
        match shown_as(&reader.table) == name.table {
            true => ends.extend(readers(reader)),
            false => _ = ends.insert(reader),
        }
    }
    ends
}

fn links<'a>(site: &Site, columns: impl ExactSizeIterator<Item = &'a ColumnName>) -> Markup {
    let count = columns.len();
    let items = columns.map(|column| {
        let shown = ColumnName { table: shown_as(&column.table), ..column.clone() };
        let target = if has_row(site, &shown) { shown.to_string() } else { shown.table.to_string() };
        // the line may break between table and column
        let name = el("a").set("href", format!("#{}", anchor(target))).text(format!("{}.", column.table));
        el("li").add(name.add(el("wbr")).text(&column.column))
    });
    let list = el("ul").class("columns").add_all(items);
    match count {
        0 => Markup::default(),
        1..=FEW => list.into(),
        _ => el("details").add(el("summary").text(format!("{count} columns"))).add(list).into(),
    }
}

/// Reference tables have no row per column, nor has what is only decided over bronze.
fn has_row(site: &Site, column: &ColumnName) -> bool {
    let schema = match column.table.schema.as_str() {
        zone::BRONZE => site.project.source(&column.table.table).map(Source::bronze_schema),
        _ => site.project.model(&column.table).map(|model| model.schema.clone()),
    };
    schema.is_some_and(|schema| schema.field_with_name(&column.column).is_ok())
}
