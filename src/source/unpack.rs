//! The bytes behind a file's compression.
//!
//! A compressed file is a chain of *parts*: gzip's members, zstd's frames. Whatever a file holds instead, what came before
//! its first fault is handed out, and the fault is told as what it is: a file that is nothing of the kind, one that ends
//! early, one that is damaged, or one with something else behind its last part. Zeros behind a gzip are padding, as for
//! gzip(1).

use std::io::{self, BufRead, Read};
use std::mem;
use std::ops::Range;

use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::files::Raw;
use crate::project::manifest::Limits;

/// Unpacked bytes are handed on in pieces of at most so many.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;

/// Small files may compress well; a bomb shows once it has unpacked so many bytes. Nothing is handed on before that, so that
/// a bomb is one refused record rather than millions.
const RATIO_FROM_BYTES: usize = 4 * 1024 * 1024;

/// Asked of a decoder at once: what it had unpacked in a call that comes upon a fault is lost.
const CALL_BYTES: usize = 64 * 1024;

/// Landed bytes that are read at once.
const PACKED_BYTES: usize = 32 * 1024;

/// Why no more bytes come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    End,
    Fault(String),
}

/// The bytes behind a file's compression.
pub(super) enum Unpacked<'a> {
    Plain(&'a mut Raw),
    Packed(Codec, Part<'a>),
}

impl<'a> Unpacked<'a> {
    pub fn new(path: &str, raw: &'a mut Raw) -> Self {
        match Codec::of(path) {
            Some(codec) => Unpacked::Packed(codec, Part::Next(Packed::new(raw))),
            None => Unpacked::Plain(raw),
        }
    }

    /// How much to read at once: a plain file in one go where it is small, of a compressed one what may show a bomb.
    pub fn buffer_bytes(&self, landed_bytes: u64) -> usize {
        match self {
            Unpacked::Plain(_) => {
                usize::try_from(landed_bytes).unwrap_or(PIECE_BYTES).clamp(4096, PIECE_BYTES - 1) + 1
            }
            Unpacked::Packed(..) => RATIO_FROM_BYTES,
        }
    }

    /// Reads until the buffer is full or no more bytes come; how many there are, and why no more.
    pub fn fill(&mut self, buffer: &mut [u8]) -> (usize, Option<Stop>) {
        let mut size = 0;
        while size < buffer.len() {
            match self.read(&mut buffer[size..]) {
                Ok(0) => return (size, Some(Stop::End)),
                Ok(more) => size += more,
                Err(reason) => return (size, Some(Stop::Fault(reason))),
            }
        }
        (size, None)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, String> {
        let (codec, part) = match self {
            Unpacked::Plain(raw) => {
                return retried(buffer, |buffer| raw.read(buffer)).map_err(|e| e.to_string());
            }
            Unpacked::Packed(codec, part) => (*codec, part),
        };
        let room = buffer.len().min(CALL_BYTES);
        loop {
            let read = retried(&mut buffer[..room], |buffer| part.read(buffer));
            match read {
                Ok(0) if !part.go_on(codec)? => return Ok(0),
                Ok(0) => {}
                Ok(size) => return Ok(size),
                Err(error) => return Err(told(codec, part.taken(), &error)),
            }
        }
    }

    /// What is wrong with a file of which `handed_on` bytes were handed on, and `size` more are there.
    pub fn over_limit(&self, handed_on: u64, size: usize, limits: &Limits) -> Option<String> {
        let Unpacked::Packed(_, part) = self else {
            return None;
        };
        let total = handed_on + size as u64;
        let not_read = match handed_on {
            0 => "none of it was read".to_owned(),
            _ => format!("what comes after the first {handed_on} of them was not read"),
        };
        let meant =
            |key: &str| format!("if it is meant, raise `limits.{key}` and land it again under a new name");
        if total > limits.unpacked_bytes {
            let (limit, meant) = (limits.unpacked_bytes, meant("unpacked_bytes"));
            return Some(format!("the file unpacks to more than {limit} bytes: {not_read}; {meant}"));
        }
        let (packed, limit) = (part.taken().max(1), limits.unpacked_ratio);
        if total < RATIO_FROM_BYTES as u64 || total / packed <= limit {
            return None;
        }
        let meant = meant("unpacked_ratio");
        Some(format!(
            "the file unpacks to more than {limit} times its size: its first {packed} bytes to {total}; {not_read}; {meant}"
        ))
    }
}

fn retried(buffer: &mut [u8], mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn told(codec: Codec, taken: u64, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => format!(
            "the compressed file ends too early: its {taken} bytes stop inside the {} data",
            codec.name()
        ),
        _ => format!("the compressed file is damaged, at byte {taken} or before: {error}"),
    }
}

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Zstd,
}

impl Codec {
    fn of(path: &str) -> Option<Self> {
        match path {
            _ if path.ends_with(".gz") => Some(Codec::Gzip),
            _ if path.ends_with(".zst") => Some(Codec::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
        }
    }

    /// Whether a part begins so, as far as `start` goes.
    fn begins(self, start: &[u8]) -> bool {
        let is = |magic: &[u8], start: &[u8]| magic.iter().zip(start).all(|(magic, byte)| magic == byte);
        match (self, start) {
            (Codec::Gzip, _) => is(&[0x1F, 0x8B], start),
            // a frame to be skipped
            (Codec::Zstd, [0x50..=0x5F, rest @ ..]) => is(&[0x2A, 0x4D, 0x18], rest),
            (Codec::Zstd, _) => is(&[0x28, 0xB5, 0x2F, 0xFD], start),
        }
    }
}

/// Where in the chain of parts a file is.
pub(super) enum Part<'a> {
    /// Before a part or the end.
    Next(Packed<'a>),
    Gzip(Box<GzDecoder<Packed<'a>>>),
    Zstd(Box<ZstdDecoder<'static, Packed<'a>>>),
    /// Behind the last, after so many bytes.
    Over(u64),
}

impl Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Part::Gzip(part) => part.read(buffer),
            Part::Zstd(part) => part.read(buffer),
            Part::Next(_) | Part::Over(_) => Ok(0),
        }
    }

    /// How many of the landed bytes were needed so far.
    fn taken(&self) -> u64 {
        match self {
            Part::Next(packed) => packed.taken,
            Part::Gzip(part) => part.get_ref().taken,
            Part::Zstd(part) => part.get_ref().taken,
            Part::Over(taken) => *taken,
        }
    }

    /// Goes on to the next part; `false` at the end of the file.
    fn go_on(&mut self, codec: Codec) -> Result<bool, String> {
        let taken = self.taken();
        let mut packed = match mem::replace(self, Part::Over(taken)) {
            Part::Next(packed) => packed,
            Part::Gzip(part) => part.into_inner(),
            Part::Zstd(part) => part.finish(),
            Part::Over(_) => return Ok(false),
        };
        if taken > 0 && codec == Codec::Gzip {
            packed.skip_zeros().map_err(|error| told(codec, taken, &error))?;
        }
        *self = Part::Over(packed.taken);
        let start = packed.peek().map_err(|error| told(codec, taken, &error))?;
        let name = codec.name();
        if codec.begins(start) && !start.is_empty() {
            *self = match codec {
                Codec::Gzip => Part::Gzip(Box::new(GzDecoder::new(packed))),
                Codec::Zstd => {
                    let part =
                        ZstdDecoder::with_buffer(packed).map_err(|error| told(codec, taken, &error))?;
                    Part::Zstd(Box::new(part.single_frame()))
                }
            };
            return Ok(true);
        }
        let shown: Vec<String> = start.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = shown.join(" ");
        match (taken, start.is_empty()) {
            (0, true) => Err(format!("the file is empty: there is no {name} data in it")),
            (0, false) => Err(format!(
                "the file is no {name}, as its name says: it begins with the bytes {shown}; name it as what it is and \
                 land it again"
            )),
            (_, true) => Ok(false),
            (_, false) => Err(format!(
                "something that is no {name} comes after the first {} bytes of the file, it begins with the bytes {shown}; \
                 the {name} data before it is whole and was read",
                packed.taken
            )),
        }
    }
}

/// The landed bytes, of which the next can be looked at.
pub(super) struct Packed<'a> {
    raw: &'a mut Raw,
    buffer: Vec<u8>,
    /// Where in the buffer the bytes are that were read and not yet taken.
    ready: Range<usize>,
    taken: u64,
}

impl<'a> Packed<'a> {
    fn new(raw: &'a mut Raw) -> Self {
        Packed { raw, buffer: vec![0; PACKED_BYTES], ready: 0..0, taken: 0 }
    }

    /// The next four bytes; fewer at the end of the file.
    fn peek(&mut self) -> io::Result<&[u8]> {
        const BYTES: usize = 4;
        while self.ready.len() < BYTES && self.read_more()? {}
        let start = self.ready.start;
        Ok(&self.buffer[start..start + self.ready.len().min(BYTES)])
    }

    /// Reads what fits behind what is there; `false` at the end of the file.
    fn read_more(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.ready.clone(), 0);
        self.ready = 0..self.ready.len();
        let size = retried(&mut self.buffer[self.ready.end..], |buffer| self.raw.read(buffer))?;
        self.ready.end += size;
        Ok(size > 0)
    }

    fn skip_zeros(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.fill_buf()?;
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            if zeros == 0 {
                return Ok(());
            }
            self.consume(zeros);
        }
    }
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.fill_buf()?.read(buffer)?;
        self.consume(size);
        Ok(size)
    }
}

impl BufRead for Packed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.ready.is_empty() {
            self.read_more()?;
        }
        Ok(&self.buffer[self.ready.clone()])
    }

    fn consume(&mut self, amount: usize) {
        self.ready.start += amount;
        self.taken += amount as u64;
    }
}

#[cfg(test)]
mod tests;
