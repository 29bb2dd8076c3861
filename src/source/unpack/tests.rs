use std::io::Write;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

/// Hands out a few bytes at a time, as a store may, and then fails or ends.
struct Dribble(Vec<u8>, usize, Option<io::ErrorKind>);

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.0.len().min(self.1).min(buffer.len());
        buffer[..size].copy_from_slice(&self.0[..size]);
        self.0.drain(..size);
        match (size, self.2) {
            (0, Some(kind)) => Err(kind.into()),
            _ => Ok(size),
        }
    }
}

/// All that is unpacked, and what stopped it; the same however the bytes come.
fn unpacked(path: &str, bytes: &[u8]) -> (String, Stop) {
    let read = |at_once: usize| {
        let mut raw = Raw::of(Dribble(bytes.to_vec(), at_once, None));
        let (mut unpacked, mut all, mut buffer) = (Unpacked::new(path, &mut raw), Vec::new(), [0; 7]);
        loop {
            let (size, stop) = unpacked.fill(&mut buffer);
            all.extend_from_slice(&buffer[..size]);
            if let Some(stop) = stop {
                return (String::from_utf8(all).unwrap(), stop);
            }
        }
    };
    let found = read(1);
    for at_once in [2, 3, 5, 1000] {
        assert_eq!(found, read(at_once), "{path} in pieces of {at_once}");
    }
    found
}

#[test]
fn all_parts_of_a_chain_are_read() {
    let skippable = [&[0x5A, 0x2A, 0x4D, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    for (path, parts) in [
        ("a", vec![b"one two three".to_vec()]),
        ("a.gz", vec![gzip(b"one "), gzip(b""), gzip(b"two three")]),
        ("a.gz", vec![gzip(b"one two three"), vec![0; 40_000]]),
        ("a.gz", vec![gzip(b"one two three"), vec![0]]),
        ("a.zst", vec![zstd(b"one "), zstd(b""), skippable.clone(), zstd(b"two three")]),
        ("a.zst", vec![skippable, zstd(b"one two three")]),
    ] {
        assert_eq!(unpacked(path, &parts.concat()), ("one two three".to_owned(), Stop::End), "{path}");
    }
}

#[test]
fn a_fault_is_told_as_what_it_is_and_costs_nothing_before_it() {
    let torn = |packed: Vec<u8>| packed[..packed.len() - 3].to_vec();
    let mut flipped = gzip(b"one");
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    for (path, parts, read, why) in [
        ("a.gz", vec![], "", "the file is empty: there is no gzip data in it"),
        ("a.zst", vec![], "", "the file is empty: there is no zstd data in it"),
        (
            "a.gz",
            vec![b"{\"id\":1}".to_vec()],
            "",
            "no gzip, as its name says: it begins with the bytes 7b 22 69 64",
        ),
        ("a.gz", vec![zstd(b"one")], "", "no gzip, as its name says: it begins with the bytes 28 b5 2f fd"),
        ("a.gz", vec![vec![0; 9]], "", "no gzip, as its name says: it begins with the bytes 00 00 00 00"),
        ("a.zst", vec![b"PK".to_vec()], "", "no zstd, as its name says: it begins with the bytes 50 4b"),
        ("a.zst", vec![gzip(b"one")], "", "no zstd, as its name says"),
        (
            "a.gz",
            vec![gzip(b"one"), b"x".to_vec()],
            "one",
            "no gzip comes after the first 23 bytes of the file",
        ),
        (
            "a.gz",
            vec![gzip(b"one"), b"more text".to_vec()],
            "one",
            "it begins with the bytes 6d 6f 72 65; the gzip data",
        ),
        ("a.gz", vec![gzip(b"one"), vec![0; 9], b"x".to_vec()], "one", "comes after the first 32 bytes"),
        ("a.gz", vec![gzip(b"one"), vec![0; 9], gzip(b"two")], "onetwo", ""),
        (
            "a.zst",
            vec![zstd(b"one"), b"x".to_vec()],
            "one",
            "no zstd comes after the first 12 bytes of the file",
        ),
        ("a.zst", vec![zstd(b"one"), vec![0; 9]], "one", "it begins with the bytes 00 00 00 00"),
        ("a.gz", vec![vec![0x1F]], "", "ends too early: its 1 bytes stop inside the gzip data"),
        ("a.gz", vec![gzip(b"one"), torn(gzip(b"two"))], "onetwo", "its 43 bytes stop inside the gzip data"),
        ("a.zst", vec![zstd(b"one"), vec![0x28, 0xB5]], "one", "its 14 bytes stop inside the zstd data"),
        ("a.gz", vec![flipped], "one", "the compressed file is damaged, at byte 23 or before: corrupt gzip"),
    ] {
        let (found, stop) = unpacked(path, &parts.concat());
        assert_eq!(found, read, "{path}: {why}");
        match stop {
            Stop::End => assert_eq!(why, ""),
            Stop::Fault(reason) => {
                assert!(!why.is_empty() && reason.contains(why), "{path}: {reason}, not: {why}")
            }
        }
    }
}

#[test]
fn a_store_that_fails_is_no_fault_of_the_file() {
    for (path, bytes) in [("a", b"one".to_vec()), ("a.gz", gzip(b"one")), ("a.zst", zstd(b"one"))] {
        let torn = bytes[..bytes.len() - 1].to_vec();
        let mut raw = Raw::of(Dribble(torn, 4, Some(io::ErrorKind::ConnectionReset)));
        let (_, stop) = Unpacked::new(path, &mut raw).fill(&mut [0; 100]);
        assert!(matches!(stop, Some(Stop::Fault(_))), "{path}: {stop:?}");
        assert_eq!(raw.failure.map(|error| error.kind()), Some(io::ErrorKind::ConnectionReset), "{path}");
    }
}
