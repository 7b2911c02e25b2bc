//! Streams that no writer here makes.

use super::*;
use crate::{Device, Timestamp, Xattrs};

/// A header with the given type, name, size field and magic.
fn header(kind: u8, name: &[u8], size: &[u8], gnu: bool) -> tar::Header {
    let mut header = tar::Header::new_old();
    let bytes = header.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(name);
    bytes[100..107].copy_from_slice(b"0000644");
    bytes[124..124 + size.len()].copy_from_slice(size);
    bytes[156] = kind;
    bytes[257..265].copy_from_slice(if gnu { b"ustar  \0" } else { b"ustar\x0000" });
    header
}

fn sealed(mut header: tar::Header) -> Vec<u8> {
    header.as_mut_bytes()[148..156].fill(b' ');
    let sum: u64 = header.as_bytes().iter().map(|&byte| u64::from(byte)).sum();
    number::write_octal(&mut header.as_mut_bytes()[148..155], sum);
    header.as_bytes().to_vec()
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len() + padding(data.len() as u64) as usize, 0);
    data
}

fn plain(kind: u8, name: &str, data: &[u8]) -> Vec<u8> {
    let size = format!("{:011o}", data.len());
    [sealed(header(kind, name.as_bytes(), size.as_bytes(), false)), padded(data)].concat()
}

fn records(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        pax::write(&mut data, key.as_bytes(), value.as_bytes());
    }
    plain(b'x', "pax", &data)
}

fn first(stream: &[u8]) -> Result<(Entry, Vec<u8>), TarError> {
    let mut reader = Reader::new(stream);
    let entry = reader.next_entry()?.expect("an entry");
    let mut content = Vec::new();
    reader.content(|piece| {
        content.extend_from_slice(piece);
        Ok::<_, TarError>(())
    })?;
    while reader.next_entry()?.is_some() {}
    Ok((entry, content))
}

#[test]
fn extended_headers_override_the_plain_one() {
    let stream = [
        records(&[
            ("path", "long name"),
            ("uid", "3000000000"),
            ("mtime", "12.25"),
            ("size", "3"),
            ("SCHILY.xattr.user.a", "1"),
            ("SCHILY.xattr.user.a", "2"),
            ("unknown", "ignored"),
        ]),
        sealed(header(b'0', b"short", b"00000000000", false)),
        padded(b"abc"),
        plain(b'0', "next", b""),
    ]
    .concat();
    let (entry, content) = first(&stream).unwrap();
    assert_eq!((entry.name.as_slice(), content.as_slice()), (&b"long name"[..], &b"abc"[..]));
    assert_eq!((entry.uid, entry.mode), (3_000_000_000, 0o644));
    assert_eq!(entry.mtime, Timestamp { secs: 12, nanos: 250_000_000 });
    assert_eq!(entry.xattrs, [(b"user.a".to_vec(), b"2".to_vec())]);
}

#[test]
fn gnu_long_names_and_links_are_read() {
    let long = "n".repeat(300) + "\0";
    let stream = [
        plain(b'L', "././@LongLink", long.as_bytes()),
        plain(b'K', "././@LongLink", b"target\0"),
        plain(b'2', "cut", b""),
    ]
    .concat();
    let (entry, _) = first(&stream).unwrap();
    assert_eq!((entry.name.len(), entry.link.as_slice()), (300, &b"target"[..]));
    assert_eq!(entry.kind, EntryKind::Symlink);
}

#[test]
fn global_headers_say_nothing_about_entries() {
    let mut data = Vec::new();
    pax::write(&mut data, b"path", b"evil");
    let (entry, _) = first(&[plain(b'g', "g", &data), plain(b'0', "f", b"")].concat()).unwrap();
    assert_eq!(entry.name, b"f");
}

#[test]
fn all_ways_to_say_sparse_give_the_same_layout() {
    let content = b"aaaaabbbbb";
    let mut old = header(b'S', b"f", b"00000000012", true);
    {
        let bytes = old.as_mut_bytes();
        for (at, number) in [(386, 0), (398, 5), (410, 4096), (422, 5), (483, 5000)] {
            number::write_octal(&mut bytes[at..at + 12], number);
        }
    }
    let map = padded(b"2\n0\n5\n4096\n5\n");
    let streams = [
        ("old GNU", [sealed(old), padded(content)].concat()),
        (
            "0.0",
            [
                records(&[
                    ("GNU.sparse.size", "5000"),
                    ("GNU.sparse.numblocks", "2"),
                    ("GNU.sparse.offset", "0"),
                    ("GNU.sparse.numbytes", "5"),
                    ("GNU.sparse.offset", "4096"),
                    ("GNU.sparse.numbytes", "5"),
                ]),
                plain(b'0', "f", content),
            ]
            .concat(),
        ),
        (
            "0.1",
            [
                records(&[
                    ("GNU.sparse.name", "f"),
                    ("path", "GNUSparseFile.0/f"),
                    ("GNU.sparse.size", "5000"),
                    ("GNU.sparse.map", "0,5,4096,5"),
                ]),
                plain(b'0', "x", content),
            ]
            .concat(),
        ),
        (
            "1.0",
            [
                records(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.name", "f"),
                    ("GNU.sparse.realsize", "5000"),
                ]),
                plain(b'0', "x", &[&map[..], content].concat()),
            ]
            .concat(),
        ),
    ];
    for (how, stream) in streams {
        let (entry, read) = first(&stream).unwrap_or_else(|error| panic!("{how}: {error}"));
        let layout = Sparse { segments: vec![(0, 5), (4096, 5)], size: 5000 };
        assert_eq!((entry.name.as_slice(), entry.sparse), (&b"f"[..], Some(layout)), "{how}");
        assert_eq!(read, content, "{how}");
    }
}

#[test]
fn damaged_and_hostile_streams_are_refused() {
    let file = |size: &[u8]| sealed(header(b'0', b"f", size, false));
    let mut bad_sum = file(b"0");
    bad_sum[0] = b'g';
    let huge = "x".repeat(MAX_SPECIAL as usize + 1);
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("text", vec![b'x'; 1024]),
        ("half a header", file(b"0")[..100].to_vec()),
        ("missing content", [file(b"00000001000"), vec![0; 100]].concat()),
        ("a wrong checksum", bad_sum),
        ("a lone empty block", [vec![0; 512], file(b"0")].concat()),
        ("a negative size", file(&[0xff; 12])),
        ("a size beyond 63 bits", file(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")),
        ("a size that is no number", file(b"zzz")),
        ("records without end", plain(b'x', "p", huge.as_bytes())),
        ("a name without end", plain(b'L', "p", huge.as_bytes())),
        ("records that claim to be huge", sealed(header(b'x', b"p", b"77777777777", false))),
        ("malformed records", [plain(b'x', "p", b"99 a=b\n"), file(b"0")].concat()),
        ("a uid that is none", [records(&[("uid", "4294967295")]), file(b"0")].concat()),
        ("a uid beyond 32 bits", [records(&[("uid", "4294967296")]), file(b"0")].concat()),
        ("a negative uid", [records(&[("uid", "-1")]), file(b"0")].concat()),
        (
            "a size of records beyond",
            [records(&[("size", "9999999999999999999")]), file(b"0")].concat(),
        ),
        (
            "a sparse map beyond the file",
            [
                records(&[("GNU.sparse.size", "5"), ("GNU.sparse.map", "3,3")]),
                plain(b'0', "f", b"abc"),
            ]
            .concat(),
        ),
        (
            "a sparse map for other content",
            [
                records(&[("GNU.sparse.size", "5"), ("GNU.sparse.map", "0,4")]),
                plain(b'0', "f", b"abc"),
            ]
            .concat(),
        ),
        (
            "a sparse map without size",
            [records(&[("GNU.sparse.map", "0,3")]), plain(b'0', "f", b"abc")].concat(),
        ),
        ("an unknown type", plain(b'V', "volume", b"")),
    ];
    for (what, stream) in rows {
        let mut reader = Reader::new(stream.as_slice());
        let result = loop {
            match reader.next_entry() {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert!(result.is_err(), "{what}");
    }
}

#[test]
fn an_archive_may_end_without_empty_blocks() {
    assert!(first(&plain(b'0', "f", b"abc")).is_ok());
    assert!(Reader::new(&b""[..]).next_entry().unwrap().is_none());
}

#[test]
fn written_archives_are_byte_for_byte_those_of_go() {
    use sha2::{Digest, Sha256};

    let long = "n".repeat(150);
    let text = |text: &str| text.as_bytes().to_vec();
    let xattrs: Xattrs =
        vec![(text("user.a"), text("b")), (text("security.capability"), text("\x01\0\n="))];
    let device = |major, minor| Device { major, minor };
    let rows = [
        (format!("d/{long}/"), RecordKind::Directory, 0o1755),
        (text_of("ü dir/ö"), RecordKind::File(5), 0o644),
        (text_of("suid"), RecordKind::File(0), 0o6755),
        (text_of("l"), RecordKind::Symlink(text(&format!("/{long}"))), 0o777),
        (text_of("h"), RecordKind::Hardlink(text("ü dir/ö")), 0o644),
        (text_of("c"), RecordKind::CharDevice(device(1, 3)), 0o666),
        (text_of("b"), RecordKind::BlockDevice(device(259, 70_000)), 0o660),
        ("x".repeat(100), RecordKind::Fifo, 0o600),
    ];
    let mut writer = Writer::new(Vec::new());
    for (name, kind, mode) in rows {
        let mut record = Record {
            name: name.into_bytes(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            xattrs: Xattrs::new(),
        };
        let mut content = "";
        match record.kind {
            RecordKind::File(5) => {
                (record.uid, record.gid, record.mtime) = (3_000_000_000, 2_097_152, -77);
                content = "hello";
            }
            RecordKind::File(_) => {
                record.mtime = 1 << 34;
                record.xattrs.clone_from(&xattrs);
            }
            _ => {}
        }
        writer.record(&record).unwrap();
        writer.content(content.as_bytes()).unwrap();
    }
    let digest = Sha256::digest(writer.finish().unwrap());
    let expected: [u8; 32] = [
        0xb8, 0xc3, 0x90, 0x49, 0x13, 0xc3, 0x79, 0xe1, 0xd9, 0x6f, 0xe6, 0xaf, 0x15, 0xc1, 0xb6,
        0x99, 0xe0, 0x00, 0xfd, 0x9a, 0xde, 0x03, 0x39, 0xb3, 0x81, 0x44, 0x44, 0xa6, 0x36, 0x7f,
        0x68, 0xd3,
    ];
    assert_eq!(digest.as_slice(), expected);
}

fn text_of(text: &str) -> String {
    text.to_owned()
}
