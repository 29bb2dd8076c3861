//! Keys that must not come twice in one object.

use super::strings::unescape;
use super::{Flaw, Quoted};

/// The keys of the objects that are open, innermost last.
#[derive(Debug, Default)]
pub(super) struct Keys {
    spans: Vec<KeySpan>,
    unescaped: String,
}

#[derive(Clone, Copy, Debug)]
struct KeySpan {
    landed: Quoted,
    /// Its text in `Keys::unescaped` if it is escaped, else in the line.
    start: usize,
    end: usize,
}

impl Keys {
    pub(super) fn clear(&mut self) {
        self.spans.clear();
        self.unescaped.clear();
    }

    /// How many keys there are, of all open objects.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn push(&mut self, line: &str, key: Quoted) {
        let (mut start, mut end) = (key.start, key.end);
        if key.escaped {
            start = self.unescaped.len();
            unescape(line, key, &mut self.unescaped);
            end = self.unescaped.len();
        }
        self.spans.push(KeySpan { landed: key, start, end });
    }

    /// Checks the keys from `first` on, those of one object, and forgets them.
    pub(super) fn close_object(&mut self, line: &str, first: usize) -> Result<(), Flaw> {
        let unescaped = self.unescaped.as_bytes();
        let text = |span: &KeySpan| {
            let source = if span.landed.escaped { unescaped } else { line.as_bytes() };
            &source[span.start..span.end]
        };
        let keys = &mut self.spans[first..];
        const FEW: usize = 8;
        let twice = if keys.len() <= FEW {
            (1..keys.len())
                .find(|&later| keys[..later].iter().any(|key| text(key) == text(&keys[later])))
                .map(|at| keys[at])
        } else {
            keys.sort_unstable_by(|a, b| text(a).cmp(text(b)).then(a.landed.start.cmp(&b.landed.start)));
            keys.windows(2).find(|pair| text(&pair[0]) == text(&pair[1])).map(|pair| pair[1])
        };
        self.spans.truncate(first);
        match twice {
            Some(key) => Err(Flaw::KeyTwice(key.landed.start, key.landed.end)),
            None => Ok(()),
        }
    }
}
