//! What S3 answers in XML, as far as wald asks for it.
//!
//! Invariant: a document is believed only if it is the one that was asked for, whole, and says how
//! to go on if it is not the last: a proxy's page, or half a list, is not an empty list.

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;

/// Why an answer is not what was asked for.
pub(super) type Unreadable = String;

/// A page of ListObjectVersions,
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VersionsPage {
    pub(super) is_truncated: bool,
    #[serde(default)]
    encoding_type: Option<String>,
    #[serde(default)]
    next_key_marker: Option<String>,
    #[serde(default)]
    next_version_id_marker: Option<String>,
    #[serde(default, rename = "Version")]
    pub(super) versions: Vec<Version>,
    #[serde(default, rename = "DeleteMarker")]
    pub(super) delete_markers: Vec<Version>,
}

/// A version or a delete marker, which has no size.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) key: String,
    pub(super) version_id: String,
    pub(super) is_latest: bool,
    pub(super) last_modified: jiff::Timestamp,
    #[serde(default)]
    pub(super) size: Option<u64>,
}

/// A page of ListMultipartUploads,
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UploadsPage {
    pub(super) is_truncated: bool,
    #[serde(default)]
    encoding_type: Option<String>,
    #[serde(default)]
    next_key_marker: Option<String>,
    #[serde(default)]
    next_upload_id_marker: Option<String>,
    #[serde(default, rename = "Upload")]
    pub(super) uploads: Vec<UnfinishedUpload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UnfinishedUpload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: jiff::Timestamp,
}

/// The answer to GetObjectRetention.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Retention {
    pub(super) mode: String,
    pub(super) retain_until_date: jiff::Timestamp,
}

/// The answer to GetObjectLegalHold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LegalHold {
    pub(super) status: String,
}

/// The answer to GetBucketVersioning: without a status where it was never switched on.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VersioningConfiguration {
    #[serde(default)]
    pub(super) status: Option<String>,
}

/// The answer to GetObjectLockConfiguration.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ObjectLockConfiguration {
    #[serde(default)]
    pub(super) object_lock_enabled: Option<String>,
    #[serde(default)]
    pub(super) rule: Option<LockRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LockRule {
    #[serde(default)]
    pub(super) default_retention: Option<DefaultRetention>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DefaultRetention {
    #[serde(default)]
    pub(super) mode: Option<String>,
    #[serde(default)]
    pub(super) days: Option<u32>,
    #[serde(default)]
    pub(super) years: Option<u32>,
}

/// Where the next page begins: the last name of this one, and the last id under it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct NextPage {
    pub(super) key: String,
    pub(super) id: Option<String>,
}

/// The way through a list: a server that comes back to a page would keep its reader for ever. Not
/// every server lists in the order of names, and ids have none; so each place counts once.
#[derive(Default)]
pub(super) struct PagesSeen(HashSet<NextPage>);

impl PagesSeen {
    /// The next page, if it is one that was not read before.
    pub(super) fn go_on(&mut self, next: Option<NextPage>) -> Result<Option<NextPage>, Unreadable> {
        match &next {
            Some(page) if !self.0.insert(page.clone()) => Err("the list does not go on".to_owned()),
            _ => Ok(next),
        }
    }
}

/// Reads the document whose outermost element is `root`.
pub(super) fn read<D: DeserializeOwned>(root: &str, body: &[u8]) -> Result<D, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| format!("expected {root} and got no text"))?;
    let whole = text.contains(&format!("<{root}"))
        && (text.trim_end().ends_with(&format!("</{root}>")) || text.trim_end().ends_with("/>"));
    if !whole {
        return Err(format!("asked for {root} and got something else"));
    }
    quick_xml::de::from_str(text).map_err(|error| format!("{root} can't be read: {error}"))
}

impl VersionsPage {
    /// Reads a page with its names decoded, and says where the next one begins.
    pub(super) fn read(body: &[u8]) -> Result<(Self, Option<NextPage>), Unreadable> {
        let mut page: Self = read("ListVersionsResult", body)?;
        let encoded = is_encoded(page.encoding_type.as_deref())?;
        for entry in page.versions.iter_mut().chain(&mut page.delete_markers) {
            entry.key = decoded(&entry.key, encoded)?;
        }
        let next = next(page.is_truncated, &page.next_key_marker, &page.next_version_id_marker, encoded)?;
        // From the name alone the next page would begin behind all versions of that name.
        if next.as_ref().is_some_and(|next| next.id.is_none()) {
            return Err("the list of versions is cut short and does not say at which version".to_owned());
        }
        Ok((page, next))
    }
}

impl UploadsPage {
    /// Reads a page with its names decoded, and says where the next one begins.
    pub(super) fn read(body: &[u8]) -> Result<(Self, Option<NextPage>), Unreadable> {
        let mut page: Self = read("ListMultipartUploadsResult", body)?;
        let encoded = is_encoded(page.encoding_type.as_deref())?;
        for upload in &mut page.uploads {
            upload.key = decoded(&upload.key, encoded)?;
        }
        let next = next(page.is_truncated, &page.next_key_marker, &page.next_upload_id_marker, encoded)?;
        Ok((page, next))
    }
}

fn next(
    is_truncated: bool,
    key: &Option<String>,
    id: &Option<String>,
    encoded: bool,
) -> Result<Option<NextPage>, Unreadable> {
    if !is_truncated {
        return Ok(None);
    }
    let key = key.as_deref().filter(|key| !key.is_empty());
    let key = key.ok_or("the list is cut short and does not say where it goes on")?;
    let id = id.clone().filter(|id| !id.is_empty());
    Ok(Some(NextPage { key: decoded(key, encoded)?, id }))
}

/// Names are asked for in this form, since XML can't hold every name; a server may ignore that.
fn is_encoded(encoding: Option<&str>) -> Result<bool, Unreadable> {
    match encoding {
        None | Some("") => Ok(false),
        Some("url") => Ok(true),
        Some(other) => Err(format!("the names in the list are in an unknown form, {other:?}")),
    }
}

/// A space is a plus sign in this form.
fn decoded(name: &str, encoded: bool) -> Result<String, Unreadable> {
    if !encoded {
        return Ok(name.to_owned());
    }
    let spaced = name.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(|name| name.into_owned()).map_err(|_| format!("{name:?} in the list is no name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    fn page(encoding: &str, key: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\n<ListVersionsResult xmlns=\"x\">{encoding}<IsTruncated>false</IsTruncated>\
             <Version><Key>{key}</Key><VersionId>v</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2026-11-22T21:26:13Z</LastModified><Size>1</Size></Version></ListVersionsResult>\n"
        )
    }

    fn key_of(text: &str) -> String {
        let (page, next) = VersionsPage::read(text.as_bytes()).unwrap();
        assert_eq!(next, None);
        page.versions.first().map(|version| version.key.clone()).unwrap()
    }

    #[test]
    fn a_server_that_does_not_encode_names_is_read_as_it_writes() {
        for encoding in ["", "<EncodingType></EncodingType>"] {
            assert_eq!(key_of(&page(encoding, "a+b%20&amp;&#252;")), "a+b%20&ü");
        }
    }

    #[test]
    fn a_list_of_versions_that_is_cut_short_says_at_which_version() {
        let cut = |markers: &str| {
            let text = page("", "a").replace("false</IsTruncated>", &format!("true</IsTruncated>{markers}"));
            VersionsPage::read(text.as_bytes()).map(|(_, next)| next)
        };
        let (key, id) = ("<NextKeyMarker>a</NextKeyMarker>", "<NextVersionIdMarker>v</NextVersionIdMarker>");
        let next = NextPage { key: "a".to_owned(), id: Some("v".to_owned()) };
        assert_eq!(cut(&format!("{key}{id}")).unwrap(), Some(next));
        assert!(cut(key).is_err() && cut(id).is_err() && cut("").is_err());
    }

    #[test]
    fn a_list_that_comes_back_to_a_page_ends() {
        let at = |key: &str, id: &str| Some(NextPage { key: key.to_owned(), id: Some(id.to_owned()) });
        let mut seen = PagesSeen::default();
        for place in [at("a", "1"), at("a", "2"), at("b", "1"), None] {
            assert_eq!(seen.go_on(place.clone()).unwrap(), place);
        }
        assert!(seen.go_on(at("a", "1")).is_err());
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in "\\PC{1,40}") {
            let encoded = utf8_percent_encode(&name, NON_ALPHANUMERIC).to_string();
            let key = key_of(&page("<EncodingType>url</EncodingType>", &encoded.replace("%20", "+")));
            prop_assert_eq!(key, name);
        }

        #[test]
        fn any_answer_is_read_or_refused_without_panic(
            before in "(<\\?xml version=\"1.0\"\\?>)?(<ListVersionsResult>)?",
            inside in "(<[A-Za-z]{1,20}>|</[A-Za-z]{1,20}>|\\PC){0,40}",
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let text = format!("{before}{inside}</ListVersionsResult>");
            let _ = VersionsPage::read(text.as_bytes());
            let _ = UploadsPage::read(text.as_bytes());
            let _ = VersionsPage::read(&bytes);
            let _ = read::<Retention>("Retention", format!("<Retention>{inside}</Retention>").as_bytes());
        }
    }
}
