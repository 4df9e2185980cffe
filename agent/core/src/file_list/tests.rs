//! Tests of the file list: its lines as documented, odd names, and what is refused.

use super::*;
use proptest::prelude::*;

fn backup() -> BackupId {
    BackupId::parse("20261122T020000Z-full").unwrap()
}

fn file(path: &[u8]) -> ListedFile {
    ListedFile {
        path: RelativePath::new(path).unwrap(),
        size: 8192,
        mode: 0o600,
        mtime: 1_700_000_000,
        blake3: Blake3Hex::of(path),
        part: "base-0001.tar.zst".to_owned(),
        at: None,
    }
}

fn refusal(text: &str) -> String {
    let error = FileList::parse(&backup(), text.as_bytes()).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[test]
fn lines_are_as_documented() {
    assert_eq!(header_line(&backup()), "{\"format\":1,\"backup\":\"20261122T020000Z-full\"}\n");
    let dir = ListedDir { path: RelativePath::new("base/5").unwrap(), mode: 0o700 };
    assert_eq!(FileListEntry::Dir(dir).to_line(), "{\"dir\":\"base/5\",\"mode\":448}\n");
    let line = FileListEntry::File(file(b"base/5/1259")).to_line();
    assert!(line.starts_with(
        "{\"path\":\"base/5/1259\",\"size\":8192,\"mode\":384,\"mtime\":1700000000,\"blake3\":\""
    ));
    assert!(line.ends_with("\",\"part\":\"base-0001.tar.zst\"}\n"));
    let at = StoredRange::new(7, 1234).ok();
    let line = FileListEntry::File(ListedFile { at, ..file(b"base/5/1259") }).to_line();
    assert!(line.ends_with("\",\"part\":\"base-0001.tar.zst\",\"at\":[7,1234]}\n"));
}

#[test]
fn a_name_that_is_not_utf8_survives() {
    let odd = FileListEntry::File(file(b"odd-\xff\xfe"));
    assert!(odd.to_line().starts_with("{\"path_hex\":\"6f64642dfffe\""), "{}", odd.to_line());
    let text = header_line(&backup()) + &odd.to_line();
    let list = FileList::parse(&backup(), text.as_bytes()).unwrap();
    assert_eq!(list.files, vec![file(b"odd-\xff\xfe")]);
}

#[test]
fn a_line_whose_path_leaves_the_data_directory_is_refused() {
    let text = header_line(&backup()) + "{\"dir\":\"a/../../b\",\"mode\":448}\n";
    assert!(
        refusal(&text).contains("line 2 of the file list is refused: \"a/../../b\""),
        "{}",
        refusal(&text)
    );
}

#[test]
fn what_is_not_the_list_of_this_backup_is_refused() {
    assert!(refusal("").contains("empty"));
    assert!(refusal("{\"format\":2}\n").contains("use a newer wald"));
    assert!(refusal("{\"format\":1,\"backup\":\"20200101T000000Z-full\"}\n").contains("not to 20261122"));
    let head = header_line(&backup());
    assert!(refusal(&(head.clone() + "{\"mode\":1}\n")).contains("either \"path\" or \"dir\""));
    assert!(refusal(&(head.clone() + "{\"path\":\"a\",\"mode\":1}\n")).contains("size"));
    let line = FileListEntry::File(file(b"a")).to_line();
    assert!(refusal(&(head + &line + &line)).contains("line 3 of the file list names a a second time"));
}

#[test]
fn a_file_that_would_stand_outside_of_its_part_is_refused() {
    let head = header_line(&backup());
    let line = FileListEntry::File(file(b"a")).to_line();
    for at in ["[0,0]", "[18446744073709551615,1]", "[1]"] {
        let text = head.clone() + &line.replace("}", &format!(",\"at\":{at}}}"));
        assert!(refusal(&text).contains("line 2 of the file list is damaged"), "{}", refusal(&text));
    }
}

fn any_path() -> impl Strategy<Value = RelativePath> {
    proptest::collection::vec(any::<u8>(), 1..40)
        .prop_filter_map("a path", |bytes| RelativePath::new(bytes).ok())
}

proptest! {
    #[test]
    fn lists_round_trip(
        paths in proptest::collection::hash_set(any_path(), 0..20),
        size: u64,
        mode in 0u32..0o10000,
        mtime: i64,
        at in proptest::option::of((0u64..1 << 62, 1u64..1 << 62)),
    ) {
        let at = at.and_then(|(offset, bytes)| StoredRange::new(offset, bytes).ok());
        let mut list = FileList::default();
        for (index, path) in paths.into_iter().enumerate() {
            if index % 3 == 0 {
                list.dirs.push(ListedDir { path, mode });
            } else {
                list.files.push(ListedFile { size, mode, mtime, path, at, ..file(b"x") });
            }
        }
        let text = list.print(&backup());
        prop_assert_eq!(FileList::parse(&backup(), text.as_bytes()).unwrap(), list);
    }

    #[test]
    fn any_bytes_parse_or_fail_without_panic(bytes: Vec<u8>) {
        let _ = FileList::parse(&backup(), &bytes);
        let text = [header_line(&backup()).as_bytes(), &bytes].concat();
        let _ = FileList::parse(&backup(), &text);
    }
}
