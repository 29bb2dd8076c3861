//! Markup that is escaped by construction: text and attribute values come from anywhere and are always escaped, names of
//! elements and attributes come from this program only. There is no way to put a text into a page unescaped, but for
//! the site's own assets.

use std::fmt::{Display, Write};

/// A piece of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Markup(String);

/// An element that is being put together.
#[derive(Debug, Clone)]
pub struct Element {
    name: &'static str,
    attributes: String,
    inside: String,
}

/// Elements that have no end tag.
const VOID: [&str; 5] = ["br", "input", "link", "meta", "wbr"];

/// `<name>…</name>`
pub fn el(name: &'static str) -> Element {
    Element { name, attributes: String::new(), inside: String::new() }
}

/// A text as markup.
pub fn text(text: impl Display) -> Markup {
    Markup(escaped(&text.to_string()))
}

/// A script or style of the site's own. HTML does not unescape what stands inside these two.
pub fn asset(name: &'static str, nonce: &str, code: &'static str) -> Markup {
    Markup(format!("<{name} nonce=\"{}\">\n{code}</{name}>\n", escaped(nonce)))
}

impl Element {
    /// An attribute.
    pub fn set(mut self, name: &'static str, value: impl Display) -> Self {
        let value = escaped(&value.to_string());
        let _ = write!(self.attributes, " {name}=\"{value}\"");
        self
    }

    /// An attribute without a value.
    pub fn flag(mut self, name: &'static str) -> Self {
        let _ = write!(self.attributes, " {name}");
        self
    }

    pub fn class(self, name: impl Display) -> Self {
        self.set("class", name)
    }

    pub fn text(mut self, text: impl Display) -> Self {
        self.inside.push_str(&escaped(&text.to_string()));
        self
    }

    pub fn add(mut self, child: impl Into<Markup>) -> Self {
        self.inside.push_str(&child.into().0);
        self
    }

    /// The markup between the tags, as it is now.
    pub fn inside(&self) -> &str {
        &self.inside
    }

    pub fn add_all<C: Into<Markup>>(self, children: impl IntoIterator<Item = C>) -> Self {
        children.into_iter().fold(self, Element::add)
    }
}

impl From<Element> for Markup {
    fn from(element: Element) -> Self {
        let Element { name, attributes, inside } = element;
        Markup(match VOID.contains(&name) {
            true => format!("<{name}{attributes}>"),
            false => format!("<{name}{attributes}>{inside}</{name}>"),
        })
    }
}

impl<C: Into<Markup>> From<Option<C>> for Markup {
    fn from(markup: Option<C>) -> Self {
        markup.map(Into::into).unwrap_or_default()
    }
}

impl Markup {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn push(&mut self, more: impl Into<Markup>) {
        self.0.push_str(&more.into().0);
    }
}

impl<C: Into<Markup>> FromIterator<C> for Markup {
    fn from_iter<I: IntoIterator<Item = C>>(parts: I) -> Self {
        let mut all = Markup::default();
        for part in parts {
            all.push(part);
        }
        all
    }
}

/// For text and quoted attributes alike. Control characters, which HTML forbids, and those that turn the direction of
/// writing, with which a value could pose as another, become visible.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.extend(c.escape_unicode()),
            c if c.is_control() => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// A name as an id and a fragment: letters, digits, `.`, `-` and `_` stay, anything else becomes `~` and its code.
pub fn anchor(name: impl Display) -> String {
    let mut id = String::new();
    for c in name.to_string().chars() {
        match c.is_ascii_alphanumeric() || ".-_".contains(c) {
            true => id.push(c),
            false => {
                let _ = write!(id, "~{:x}", u32::from(c));
            }
        }
    }
    id
}

/// A link within the site.
pub fn link(to: impl Display, label: impl Display) -> Element {
    el("a").set("href", format!("#{}", anchor(to))).text(label)
}

/// A text in which `` `…` `` is code, as descriptions are written.
pub fn prose(text: &str) -> Markup {
    let mut parts = text.split('`').enumerate().peekable();
    let mut all = Markup::default();
    while let Some((at, part)) = parts.next() {
        // the last piece behind an odd backtick is no code
        match at % 2 == 1 && parts.peek().is_some() {
            true => all.push(el("code").text(part)),
            false if at % 2 == 1 => all.push(self::text(format!("`{part}"))),
            false => all.push(self::text(part)),
        }
    }
    all
}

/// The heading of a table's column.
pub enum Heading<'a> {
    Text(&'a str),
    Number(&'a str),
}

/// A table with a caption for those who do not see it, in a region that scrolls where it is too wide.
pub fn table<'a>(
    caption: impl Display,
    headings: impl IntoIterator<Item = Heading<'a>>,
    rows: impl IntoIterator<Item = Markup>,
) -> Element {
    let head = headings.into_iter().map(|heading| {
        let (name, class) = match heading {
            Heading::Text(name) => (name, "t"),
            Heading::Number(name) => (name, "n"),
        };
        el("th").set("scope", "col").class(class).text(name)
    });
    let caption = caption.to_string();
    let head = el("thead").add(el("tr").add_all(head));
    scrolls(
        &caption,
        el("table")
            .add(el("caption").class("unseen").text(&caption))
            .add(head)
            .add(el("tbody").add_all(rows)),
    )
}

/// A region that scrolls by itself where what it holds is too wide, by keyboard too.
pub fn scrolls(name: impl Display, inside: impl Into<Markup>) -> Element {
    let region = el("div").class("scroll").set("role", "region").set("tabindex", 0);
    region.set("aria-label", name).add(inside)
}

/// A row whose first cell names it.
pub fn row(name: impl Into<Markup>, cells: impl IntoIterator<Item = Element>) -> Markup {
    el("tr").add(el("th").set("scope", "row").add(name)).add_all(cells).into()
}

/// A cell of text.
pub fn cell(inside: impl Into<Markup>) -> Element {
    el("td").add(inside)
}

/// A cell with a number.
pub fn number(value: impl Display) -> Element {
    el("td").class("n").text(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_values_never_become_markup() {
        let hostile = "</td><script>alert('1')</script>\" onload=\"x&amp;\u{1b}\u{202e}";
        let made: Markup = el("td").set("title", hostile).text(hostile).into();
        let inside = "&lt;/td&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot; onload=&quot;x&amp;amp;\\u{1b}\\u{202e}";
        assert_eq!(made.as_str(), format!("<td title=\"{inside}\">{inside}</td>"));
        assert_eq!(anchor("a b\"<é.c"), "a~20b~22~3c~e9.c");
    }

    #[test]
    fn backticks_are_code() {
        assert_eq!(prose("a `b<` c").as_str(), "a <code>b&lt;</code> c");
        assert_eq!(prose("a ` b").as_str(), "a ` b");
        assert_eq!(prose("`x` and `y").as_str(), "<code>x</code> and `y");
    }
}
