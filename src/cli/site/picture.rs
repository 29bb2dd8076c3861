//! The lineage picture: tables as boxes under their zones, linked to their sections, and what leads from one to the other.
//! The script lights up what a table comes from and what it ends up in.

use std::collections::{BTreeMap, BTreeSet};

use super::atlas::{Atlas, LANDING, Node, SERVING};
use super::facts::Facts;
use super::graph::{Graph, NODE_HEIGHT, Placed};
use super::html::{Element, Heading, Markup, anchor, cell, el, link, row, scrolls, table};
use super::plot::grouped;
use crate::zone;

/// What a letter takes, and what stands beside the letters of a box.
const LETTER: f64 = 6.8;
const PADDING: f64 = 24.0;
/// Between two layers: where edges only go straight on, and where they spread.
const NARROW_GAP: f64 = 26.0;
const GAP: f64 = 42.0;
/// A wider picture may be made smaller, down to this width.
const LEGIBLE: f64 = 1056.0;
/// Above the boxes: the names of the zones.
const HEAD: f64 = 42.0;
const MARGIN: f64 = 12.0;

/// The picture of all tables.
pub fn whole(atlas: &Atlas, facts: Option<&Facts>) -> Markup {
    let nodes: BTreeSet<usize> = (0..atlas.nodes.len()).collect();
    draw(atlas, facts, &nodes, None, "Lineage: from landed files to serving tables")
}

/// The picture of one table between what it reads and what reads it.
pub fn around(atlas: &Atlas, facts: Option<&Facts>, node: usize) -> Markup {
    let near = atlas.edges.iter().filter(|(from, to)| *from == node || *to == node);
    let mut nodes: BTreeSet<usize> = near.flat_map(|(from, to)| [*from, *to]).collect();
    nodes.insert(node);
    let title = format!("What {} reads and what reads it", atlas.nodes[node].name);
    draw(atlas, facts, &nodes, Some(node), &title)
}

fn draw(
    atlas: &Atlas,
    facts: Option<&Facts>,
    shown: &BTreeSet<usize>,
    centre: Option<usize>,
    title: &str,
) -> Markup {
    let nodes: Vec<usize> = shown.iter().copied().collect();
    let index: BTreeMap<usize, usize> = nodes.iter().enumerate().map(|(at, node)| (*node, at)).collect();
    // around one table only its own edges count: layers without a node are left out
    let used: BTreeSet<usize> = nodes.iter().map(|node| atlas.nodes[*node].layer).collect();
    let layer = |node: usize| used.range(..atlas.nodes[node].layer).count();
    let is_shown = |(from, to): &&(usize, usize)| {
        index.contains_key(from)
            && index.contains_key(to)
            && centre.is_none_or(|centre| *from == centre || *to == centre)
    };
    let graph = Graph {
        layers: nodes.iter().map(|node| layer(*node)).collect(),
        edges: atlas.edges.iter().filter(is_shown).map(|(from, to)| (index[from], index[to])).collect(),
    };
    let placed = graph.place();
    let columns = Columns::of(atlas, &nodes, &graph);
    let height = HEAD + placed.height + MARGIN;
    let width = columns.width();
    let mut svg = el("svg")
        .class(if width > LEGIBLE { "lineage large" } else { "lineage" })
        .set("viewBox", format!("0 0 {width} {height}"))
        .set("width", width)
        .set("height", height)
        .set("role", "group")
        .set("aria-label", title);
    for band in columns.bands(height) {
        svg = svg.add(band);
    }
    for edge in &graph.edges {
        svg = svg.add(curve(&columns, &graph, &placed, *edge, |at| &atlas.nodes[nodes[at]]));
    }
    for (at, node) in nodes.iter().enumerate() {
        let (x, width) = columns.places[graph.layers[at]];
        let place = (x, HEAD + placed.y[at] - NODE_HEIGHT / 2.0);
        svg = svg.add(boxed(&atlas.nodes[*node], facts, place, width, centre == Some(*node)));
    }
    scrolls(format!("{title}, picture"), svg).class("picture").into()
}

/// Where the layers stand.
struct Columns {
    /// Left side and width of each layer's boxes.
    places: Vec<(f64, f64)>,
    zones: Vec<String>,
}

impl Columns {
    fn of(atlas: &Atlas, nodes: &[usize], graph: &Graph) -> Columns {
        let num_layers = graph.layers.iter().max().map_or(0, |last| last + 1);
        let mut letters = vec![0; num_layers];
        let mut zones = vec![String::new(); num_layers];
        for (node, layer) in nodes.iter().zip(&graph.layers) {
            let node = &atlas.nodes[*node];
            letters[*layer] = letters[*layer].max(node.name.table.chars().count());
            // reference tables stand beside bronze
            if zones[*layer].is_empty() || node.name.schema != zone::REFERENCE {
                zones[*layer].clone_from(&node.name.schema);
            }
        }
        let mut x = MARGIN;
        let mut places = Vec::new();
        for (layer, letters) in letters.into_iter().enumerate() {
            let width = (letters as f64 * LETTER + PADDING).max(84.0).round();
            places.push((x, width));
            x += width + if is_straight(graph, layer) { NARROW_GAP } else { GAP };
        }
        Columns { places, zones }
    }

    fn width(&self) -> f64 {
        self.places.last().map_or(0.0, |(x, width)| x + width) + MARGIN
    }

    /// A band with its name behind the layers of each zone.
    fn bands(&self, height: f64) -> Vec<Element> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.places.len() {
            let zone = &self.zones[at];
            let end = (at..self.places.len()).find(|next| self.zones[*next] != *zone);
            let end = end.unwrap_or(self.places.len());
            let (left, _) = self.places[at];
            let (last, width) = self.places[end - 1];
            found.push(
                el("g")
                    .class(format!("band z-{zone}"))
                    .add(
                        el("rect")
                            .set("x", left - 9.0)
                            .set("y", 2)
                            .set("width", last + width - left + 18.0)
                            .set("height", height - 4.0)
                            .set("rx", 8),
                    )
                    .add(el("text").set("x", left).set("y", 24).text(title_of(zone))),
            );
            at = end;
        }
        found
    }
}

/// Whether each table of a layer has one edge at most into the next, and each of the next one at most from here.
fn is_straight(graph: &Graph, layer: usize) -> bool {
    let leaving: Vec<&(usize, usize)> = graph
        .edges
        .iter()
        .filter(|(from, to)| graph.layers[*from] <= layer && graph.layers[*to] > layer)
        .collect();
    let froms: BTreeSet<usize> = leaving.iter().map(|(from, _)| *from).collect();
    let tos: BTreeSet<usize> = leaving.iter().map(|(_, to)| *to).collect();
    froms.len() == leaving.len() && tos.len() == leaving.len()
}

/// A zone as people say it.
pub fn title_of(zone: &str) -> String {
    let mut letters = zone.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn curve<'a>(
    columns: &Columns,
    graph: &Graph,
    placed: &Placed,
    edge: (usize, usize),
    node: impl Fn(usize) -> &'a Node,
) -> Element {
    let (from, to) = edge;
    let first = graph.layers[from];
    let side = |layer: usize| {
        let (x, width) = columns.places[layer];
        (x, x + width)
    };
    let (mut x, mut y) = (side(first).1, HEAD + placed.y[from]);
    let mut path = format!("M{x} {y}");
    let passes = placed.passes.get(&edge).map(Vec::as_slice).unwrap_or_default();
    let ends = passes.iter().chain([&placed.y[to]]).enumerate();
    for (at, height) in ends {
        let (left, right) = side(first + 1 + at);
        let height = HEAD + height;
        let middle = (x + left) / 2.0;
        path.push_str(&format!("C{middle} {y} {middle} {height} {left} {height}"));
        if at < passes.len() {
            path.push_str(&format!("H{right}"));
        }
        (x, y) = (right, height);
    }
    el("path")
        .class("edge")
        .set("d", path)
        .set("data-from", node(from).name.to_string())
        .set("data-to", node(to).name.to_string())
}

fn boxed(node: &Node, facts: Option<&Facts>, place: (f64, f64), width: f64, is_centre: bool) -> Element {
    let name = node.name.to_string();
    let rows = facts.and_then(|facts| facts.tables.get(&name)).map(|found| found.total.rows);
    let told = match rows {
        Some(rows) => format!("{name}, {} rows", grouped(rows)),
        None if node.is_view => format!("{name}, a view"),
        None => name.clone(),
    };
    let view = if node.is_view { " is-view" } else { "" };
    let centre = if is_centre { " centre" } else { "" };
    let (x, y) = place;
    el("a")
        .class(format!("node z-{}{view}{centre}", node.name.schema))
        .set("href", format!("#{}", anchor(&name)))
        .set("data-node", &name)
        .set("aria-label", &told)
        .add(el("title").text(&told))
        .add(
            el("rect")
                .class("box")
                .set("x", x)
                .set("y", y)
                .set("width", width)
                .set("height", NODE_HEIGHT)
                .set("rx", 5),
        )
        .add(
            el("rect")
                .class("mark")
                .set("x", x)
                .set("y", y)
                .set("width", 5)
                .set("height", NODE_HEIGHT)
                .set("rx", 2),
        )
        .add(el("text").set("x", x + 14.0).set("y", y + NODE_HEIGHT / 2.0 + 4.0).text(&node.name.table))
}

/// The picture in words: every table with what it reads and what reads it.
pub fn in_words(atlas: &Atlas) -> Markup {
    fn links<'a>(nodes: impl Iterator<Item = &'a Node>) -> Element {
        let mut all = Markup::default();
        for (at, node) in nodes.enumerate() {
            if at > 0 {
                all.push(super::html::text(", "));
            }
            all.push(link(&node.name, &node.name));
        }
        cell(all)
    }
    let mut order: Vec<usize> = (0..atlas.nodes.len()).collect();
    order.sort_by_key(|at| (atlas.nodes[*at].layer, &atlas.nodes[*at].name));
    let rows = order.into_iter().filter(|at| atlas.nodes[*at].name.schema != LANDING).map(|at| {
        let name = &atlas.nodes[at].name;
        row(link(name, name), [links(atlas.inputs(at)), links(atlas.outputs(at))])
    });
    let headings = [Heading::Text("table"), Heading::Text("reads"), Heading::Text("is read by")];
    table("Lineage of all tables", headings, rows).into()
}

/// The zones of the picture, in the direction of the data.
pub const ZONES: [&str; 6] = [LANDING, zone::BRONZE, zone::REFERENCE, zone::SILVER, zone::GOLD, SERVING];
