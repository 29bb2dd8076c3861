//! Plots as SVG: stacked columns over time or runs, and lying bars for things with names. Each has round ticks, a unit, a
//! tooltip per bar, and its numbers as a table.

use std::fmt::Display;

use super::html::{Element, Heading, Markup, el, number, prose, row, scrolls, table, text};

const WIDTH: f64 = 600.0;
/// Lying bars need room for names.
const WIDE: f64 = 720.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;

/// Height of a lying bar with its gap.
const BAR: f64 = 24.0;

/// What a letter takes, in pixels of the picture, at most.
const LETTER: f64 = 6.6;

/// Letters of the name before a lying bar, and of the unit beside the upright axis.
const MOST_NAME: usize = 38;
const MOST_UNIT: usize = 26;

/// A value as it is drawn and as it is told.
#[derive(Debug, Clone, Default)]
pub struct Value {
    pub size: f64,
    pub shown: String,
}

impl Value {
    pub fn count(number: u64) -> Value {
        Value { size: number as f64, shown: grouped(number) }
    }

    /// Millionths, told exactly but for zeros at the end.
    pub fn amount(millionths: i128) -> Value {
        Value { size: millionths as f64 / 1e6, shown: amount(millionths) }
    }

    pub fn seconds(seconds: f64) -> Value {
        Value { size: seconds, shown: format!("{seconds:.2} s") }
    }
}

/// One colour of a plot.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    /// A class of the style sheet.
    pub color: String,
    pub values: Vec<Value>,
}

/// The colour of the n-th of several things without a meaning of their own.
pub fn color(at: usize) -> String {
    format!("c{}", at % 7)
}

/// What a plot shows.
#[derive(Debug, Clone, Default)]
pub struct Plot {
    pub id: String,
    pub title: String,
    /// A sentence under the title.
    pub note: String,
    /// What the size of a bar counts.
    pub unit: String,
    /// What the bars stand for.
    pub each: String,
    pub names: Vec<String>,
    /// Bars with a label and the label.
    pub ticks: Vec<(usize, String)>,
    pub series: Vec<Series>,
}

impl Plot {
    /// Standing bars, the series of one place upon each other.
    pub fn columns(&self) -> Markup {
        let (low, high) = self.range();
        let ticks = Ticks::of(low, high, 5, self.is_whole());
        let (from, to) = (ticks.from(), ticks.to());
        let inner = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let y = |value: f64| TOP + inner.1 * (to - value) / (to - from);
        let slot = inner.0 / self.names.len().max(1) as f64;
        let bar = (slot * 0.82).clamp(1.0, 64.0);
        let middle = |at: usize| LEFT + slot * (at as f64 + 0.5);
        let mut svg = self.svg((WIDTH, HEIGHT));
        for tick in ticks.values() {
            let class = if tick == 0.0 { "zero" } else { "grid" };
            svg = svg.add(line(class, (LEFT, y(tick)), (WIDTH - RIGHT, y(tick)))).add(label(
                "end",
                (LEFT - 7.0, y(tick) + 4.0),
                ticks.label(tick),
            ));
        }
        for at in 0..self.names.len() {
            let mut top = 0.0;
            for series in &self.series {
                let value = &series.values[at];
                let (lower, upper) = match value.size < 0.0 {
                    true => (value.size, 0.0),
                    false => (top, top + value.size),
                };
                top = upper.max(top);
                if value.size == 0.0 {
                    continue;
                }
                svg = svg.add(
                    rect(
                        (middle(at) - bar / 2.0, y(upper)),
                        (bar, (y(lower) - y(upper)).max(1.0)),
                        &series.color,
                    )
                    .add(self.tooltip(at, series, value)),
                );
            }
        }
        for (at, name) in &self.ticks {
            // the outermost labels must not leave the picture
            let half = name.chars().count() as f64 * LETTER / 2.0;
            let x = middle(*at).clamp(half, WIDTH - half);
            let bottom = HEIGHT - BOTTOM;
            svg = svg.add(line("tick", (middle(*at), bottom), (middle(*at), bottom + 4.0))).add(label(
                "middle",
                (x, bottom + 17.0),
                name,
            ));
        }
        svg = svg.add(label("middle", (LEFT + inner.0 / 2.0, HEIGHT - 5.0), &self.each).class("axis"));
        let x = 12.0;
        let unit = shortened(&self.unit, MOST_UNIT);
        let up = label("middle", (x, TOP + inner.1 / 2.0), unit).class("axis");
        svg = svg.add(up.set("transform", format!("rotate(-90 {x} {})", TOP + inner.1 / 2.0)));
        self.figure("plot", svg)
    }

    /// Lying bars, each with its name before it and its value behind it.
    pub fn bars(&self) -> Markup {
        let (_, high) = self.range();
        let ticks = Ticks::of(0.0, high, 5, self.is_whole());
        let longest = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(MOST_NAME);
        let left = 10.0 + longest as f64 * LETTER;
        // room for a value behind the longest bar
        let inner = WIDE - left - 84.0;
        let x = |value: f64| left + inner * value / ticks.to();
        let bottom = TOP + BAR * self.names.len() as f64;
        let mut svg = self.svg((WIDE, bottom + BOTTOM));
        for tick in ticks.values() {
            let class = if tick == 0.0 { "zero" } else { "grid" };
            svg = svg.add(line(class, (x(tick), TOP), (x(tick), bottom))).add(label(
                "middle",
                (x(tick), bottom + 16.0),
                ticks.label(tick),
            ));
        }
        for (at, name) in self.names.iter().enumerate() {
            let y = TOP + BAR * at as f64;
            svg = svg.add(label("end", (left - 7.0, y + BAR / 2.0 + 4.0), shortened(name, MOST_NAME)));
            let mut end = 0.0;
            let mut shown = Vec::new();
            for series in &self.series {
                let value = &series.values[at];
                if value.size > 0.0 {
                    let width = (x(value.size) - x(0.0)).max(1.0);
                    svg = svg.add(
                        rect((x(end), y + 4.0), (width, BAR - 8.0), &series.color)
                            .add(self.tooltip(at, series, value)),
                    );
                    end += value.size;
                    shown.push(value.shown.as_str());
                }
            }
            let shown = if shown.is_empty() { "0".to_owned() } else { shown.join(" + ") };
            svg = svg.add(label("start", (x(end) + 6.0, y + BAR / 2.0 + 4.0), shown).class("value"));
        }
        svg = svg.add(label("middle", (left + inner / 2.0, bottom + 35.0), &self.unit).class("axis"));
        self.figure("plot wide", svg)
    }

    fn range(&self) -> (f64, f64) {
        let mut range = (0.0_f64, 0.0_f64);
        for at in 0..self.names.len() {
            let sizes = self.series.iter().map(|series| series.values[at].size);
            let (below, above): (Vec<f64>, Vec<f64>) = sizes.partition(|size| *size < 0.0);
            range = (range.0.min(below.iter().sum()), range.1.max(above.iter().sum()));
        }
        range
    }

    fn is_whole(&self) -> bool {
        self.series.iter().flat_map(|series| &series.values).all(|value| value.size.fract() == 0.0)
    }

    fn tooltip(&self, at: usize, series: &Series, value: &Value) -> Element {
        let what = match self.series.len() {
            1 => String::new(),
            _ => format!(" {}", series.name),
        };
        el("title").text(format!("{}{what}: {}", self.names[at], value.shown))
    }

    fn svg(&self, (width, height): (f64, f64)) -> Element {
        let what =
            format!("{}. {} bars; the numbers stand in the table below.", self.title, self.names.len());
        el("svg")
            .set("viewBox", format!("0 0 {width} {}", height.round()))
            .set("role", "img")
            .set("aria-label", what)
    }

    fn figure(&self, class: &str, svg: Element) -> Markup {
        let legend = (self.series.len() > 1).then(|| {
            let entries = self.series.iter().map(|series| {
                el("li").add(el("span").class(format!("key {}", series.color))).text(&series.name)
            });
            el("ul").class("legend").add_all(entries)
        });
        let note = (!self.note.is_empty()).then(|| el("p").class("note").add(prose(&self.note)));
        el("figure")
            .class(class)
            .set("id", &self.id)
            .add(el("figcaption").add(el("h4").text(&self.title)).add(note).add(legend))
            .add(scrolls(format!("{}, plot", self.title), svg))
            .add(el("details").add(el("summary").text("Numbers")).add(self.numbers()))
            .into()
    }

    fn numbers(&self) -> Element {
        let rows = self.names.iter().enumerate().map(|(at, name)| {
            row(text(name), self.series.iter().map(|series| number(&series.values[at].shown)))
        });
        let values = self.series.iter().map(|series| Heading::Number(&series.name));
        table(&self.title, [Heading::Text(&self.each)].into_iter().chain(values), rows)
    }
}

/// Round values along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    step: f64,
    first: i64,
    last: i64,
}

impl Ticks {
    /// About `count` of them, at 1, 2, 2.5 or 5 times a power of ten, around all values.
    fn of(low: f64, high: f64, count: usize, is_whole: bool) -> Ticks {
        let span = if high > low { high - low } else { 1.0 };
        let raw = span / count as f64;
        let power = 10_f64.powf(raw.log10().floor());
        let is_round =
            |factor: &f64| factor * power >= raw * 0.999 && (!is_whole || (factor * power).fract() == 0.0);
        let factor = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(is_round);
        let mut step = factor.unwrap_or(10.0) * power;
        if is_whole {
            step = step.max(1.0);
        }
        let last = (high / step - 1e-9).ceil().max(if high > low { 0.0 } else { 1.0 });
        Ticks { step, first: (low / step + 1e-9).floor() as i64, last: last as i64 }
    }

    fn from(&self) -> f64 {
        self.first as f64 * self.step
    }

    fn to(&self) -> f64 {
        self.last as f64 * self.step
    }

    fn values(self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(move |at| at as f64 * self.step)
    }

    /// `1.5M`: as many digits as the step needs.
    fn label(&self, value: f64) -> String {
        let largest = self.to().abs().max(self.from().abs());
        let (unit, sign) = match largest {
            l if l >= 1e9 => (1e9, "G"),
            l if l >= 1e6 => (1e6, "M"),
            l if l >= 1e4 => (1e3, "k"),
            _ => (1.0, ""),
        };
        let step = self.step / unit;
        let is_enough = |digits: &i32| {
            let shifted = step * 10_f64.powi(*digits);
            shifted > 0.5 && (shifted - shifted.round()).abs() < 1e-6
        };
        let digits = (0..9).find(is_enough).unwrap_or(9);
        match value == 0.0 {
            true => "0".to_owned(),
            false => format!("{:.*}{sign}", usize::try_from(digits).unwrap_or(0), value / unit),
        }
    }
}

fn shortened(name: &str, most: usize) -> String {
    match name.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

fn at(position: f64) -> String {
    let text = format!("{position:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> Element {
    let line = el("line").class(class).set("x1", at(from.0)).set("y1", at(from.1));
    line.set("x2", at(to.0)).set("y2", at(to.1))
}

fn label(anchor: &str, place: (f64, f64), name: impl Display) -> Element {
    el("text").set("x", at(place.0)).set("y", at(place.1)).set("text-anchor", anchor).text(name)
}

fn rect(place: (f64, f64), size: (f64, f64), class: &str) -> Element {
    let bar = el("rect").class(format!("bar {class}")).set("x", at(place.0)).set("y", at(place.1));
    bar.set("width", at(size.0)).set("height", at(size.1))
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: impl Display) -> String {
    let text = number.to_string();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.as_str()),
    };
    let mut grouped = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1,234.50`: all digits that mean something, at least two behind the point.
pub fn amount(millionths: i128) -> String {
    let text = crate::flow::balance::decimal_text(millionths);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let kept = fraction.trim_end_matches('0').len().max(2).min(fraction.len());
    format!("{}.{}", grouped(whole), &fraction[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        for (low, high, is_whole, expected) in [
            (0.0, 722.0, true, vec!["0", "200", "400", "600", "800"]),
            (0.0, 3.0, true, vec!["0", "1", "2", "3"]),
            (0.0, 1.0, true, vec!["0", "1"]),
            (0.0, 0.0, true, vec!["0", "1"]),
            (0.0, 0.37, false, vec!["0", "0.1", "0.2", "0.3", "0.4"]),
            (0.0, 148_351.6, false, vec!["0", "50k", "100k", "150k"]),
            (-120.0, 300.0, true, vec!["-200", "-100", "0", "100", "200", "300"]),
            (0.0, 103.0, true, vec!["0", "25", "50", "75", "100", "125"]),
            (0.0, 2_400_000.0, true, vec!["0", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M"]),
            (0.0, 5e-7, false, vec!["0", "0.0000001", "0.0000002", "0.0000003", "0.0000004", "0.0000005"]),
        ] {
            let ticks = Ticks::of(low, high, 5, is_whole);
            let labels: Vec<String> = ticks.values().map(|value| ticks.label(value)).collect();
            assert_eq!(labels, expected, "{low} to {high}");
            assert!(ticks.from() <= low && ticks.to() >= high);
        }
    }

    #[test]
    fn numbers_are_told_in_groups_and_exactly() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(-999), "-999");
        assert_eq!(amount(148_351_575_900), "148,351.5759");
        assert_eq!(amount(-1_000_000), "-1.00");
    }
}
