//! What goes wrong, for which requests, and how often; and what was asked.

use super::message::Head;
use std::time::Duration;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut; the server never hears of it.
    CutBefore,
    /// The server carries it out; the answer is dropped and the connection cut.
    CutAfter,
    /// The server gets the head and this many bytes of the body, then both connections are cut.
    CutRequest(usize),
    /// The client gets the head and this many bytes of the answer's body, then a cut.
    CutAnswer(usize),
    /// The answer's body ends after this many bytes, and its `Content-Length` says so too, as if a
    /// cache on the way held no more.
    ShortAnswer(usize),
    /// One bit in the middle of the answer's body is another.
    FlippedBit,
    /// The server never hears of it; an error is answered in its place.
    Answer(Failure),
    /// The server carries it out, and an error is answered all the same.
    AnswerAfter(Failure),
    /// The status is 200 and the body an error, as S3 answers the completion of an upload that
    /// went wrong after it had begun to answer.
    OkWithError {
        /// The error's code.
        code: &'static str,
        /// Whether the server carries the request out.
        carried_out: bool,
    },
    /// A page in HTML, as from something that stands between; the server never hears of it.
    Page(u16),
    /// An answer that sends the client elsewhere; the server never hears of it.
    Redirect {
        /// The status, 301 to 308.
        status: u16,
        /// Where to.
        location: String,
    },
    /// It reaches the server later.
    Delay(Duration),
    /// Nothing happens until the client gives up; the server never hears of it.
    Stall,
    /// The server carries it out, and then nothing happens until the client gives up.
    StallAfter,
    /// The answer comes in pieces of this many bytes with a pause after each.
    Trickle(usize, Duration),
}

/// An error in S3's words:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP status.
    pub status: u16,
    /// The code in the body.
    pub code: &'static str,
}

impl Failure {
    /// Too many requests.
    pub const SLOW_DOWN: Failure = Failure { status: 503, code: "SlowDown" };
    /// A mistake of the server's own.
    pub const INTERNAL_ERROR: Failure = Failure { status: 500, code: "InternalError" };
    /// Another request to the same object is under way.
    pub const CONFLICT: Failure = Failure { status: 409, code: "ConditionalRequestConflict" };
    /// The same, in older words.
    pub const OPERATION_ABORTED: Failure = Failure { status: 409, code: "OperationAborted" };
    /// "Only if absent" does not hold.
    pub const PRECONDITION_FAILED: Failure = Failure { status: 412, code: "PreconditionFailed" };
    /// The client's clock is wrong by more than a quarter of an hour.
    pub const TIME_SKEWED: Failure = Failure { status: 403, code: "RequestTimeTooSkewed" };
    /// The session's credentials have ended.
    pub const EXPIRED_TOKEN: Failure = Failure { status: 400, code: "ExpiredToken" };
}

/// Which requests a rule speaks of: those for which everything holds that was asked for.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    method: Option<&'static str>,
    path: String,
    with: Vec<&'static str>,
    without: Vec<&'static str>,
    header: Option<&'static str>,
}

impl Requests {
    /// Every request.
    pub fn all() -> Requests {
        Requests::default()
    }

    /// Objects created in one request.
    pub fn creations() -> Requests {
        Requests::all().method("PUT").without("uploadId").without("retention")
    }

    /// The beginnings of uploads.
    pub fn beginnings() -> Requests {
        Requests::all().method("POST").with("uploads")
    }

    /// Parts of uploads.
    pub fn parts() -> Requests {
        Requests::all().method("PUT").with("partNumber")
    }

    /// The ends of uploads.
    pub fn completions() -> Requests {
        Requests::all().method("POST").with("uploadId")
    }

    /// Objects or pieces of objects read.
    pub fn reads() -> Requests {
        Requests::all().method("GET").without("list-type").without("versions").without("retention")
    }

    /// Pages of lists.
    pub fn lists() -> Requests {
        Requests::all().method("GET").with("list-type")
    }

    /// Only of this method.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Requests {
        self.method = Some(method);
        self
    }

    /// Only of a path, `/bucket/key`, that contains this.
    #[must_use]
    pub fn path(mut self, part: impl Into<String>) -> Requests {
        self.path = part.into();
        self
    }

    /// Only with this parameter in the query.
    #[must_use]
    pub fn with(mut self, parameter: &'static str) -> Requests {
        self.with.push(parameter);
        self
    }

    /// Only without this parameter in the query.
    #[must_use]
    pub fn without(mut self, parameter: &'static str) -> Requests {
        self.without.push(parameter);
        self
    }

    /// Only with this header; its name in lower case.
    #[must_use]
    pub fn header(mut self, name: &'static str) -> Requests {
        self.header = Some(name);
        self
    }

    fn include(&self, head: &Head) -> bool {
        self.method.is_none_or(|method| head.method() == method)
            && head.path().contains(&self.path)
            && self.with.iter().all(|name| head.has_parameter(name))
            && !self.without.iter().any(|name| head.has_parameter(name))
            && self.header.is_none_or(|name| head.header(name).is_some())
    }
}

/// Which of a rule's requests are hit, counted from the moment that the rule was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// All.
    Always,
    /// The first so many.
    First(u64),
    /// All but the first so many.
    After(u64),
    /// Every so-manieth: with 3 the third, the sixth and so on.
    Every(u64),
    /// So many of a thousand, drawn from the seed. The draw depends on the request's number
    /// alone; the order in which requests run side by side arrive is the machine's.
    Share {
        /// Replays the same draws.
        seed: u64,
        /// How many of a thousand.
        per_mille: u64,
    },
}

impl When {
    /// Whether request `number`, from 1, is hit.
    fn hits(self, number: u64) -> bool {
        match self {
            When::Always => true,
            When::First(count) => number <= count,
            When::After(count) => number > count,
            When::Every(step) => number.checked_rem(step) == Some(0),
            When::Share { seed, per_mille } => scrambled(seed, number) % 1000 < per_mille,
        }
    }
}

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
fn scrambled(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One line of the script.
#[derive(Debug, Clone)]
pub struct Rule {
    requests: Requests,
    when: When,
    fault: Fault,
    met: u64,
}

impl Rule {
    pub(super) fn new(requests: Requests, when: When, fault: Fault) -> Rule {
        Rule { requests, when, fault, met: 0 }
    }
}

/// A request on record, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `PUT`, ...
    pub method: String,
    /// `/bucket/key`, as it was sent.
    pub path: String,
    /// What follows the `?`, with the values of signatures left out.
    pub query: String,
    /// Those of [`RECORDED`] that it had.
    pub headers: Vec<(String, String)>,
    /// What the script did to it.
    pub fault: Option<Fault>,
}

impl Seen {
    /// One header's value; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Headers that are kept. Not among them: whatever carries a signature or a token.
pub const RECORDED: [&str; 13] = [
    "content-length",
    "host",
    "if-match",
    "if-none-match",
    "range",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha256",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-sdk-checksum-algorithm",
];

/// All rules, and the record.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) rules: Vec<Rule>,
    pub(super) seen: Vec<Seen>,
}

impl Script {
    /// What is to be done to a request, which goes on record. Each rule counts all that it speaks
    /// of, whichever rule decides.
    pub(super) fn decide(&mut self, head: &Head) -> Option<Fault> {
        let mut fault = None;
        for rule in self.rules.iter_mut().filter(|rule| rule.requests.include(head)) {
            rule.met += 1;
            if rule.when.hits(rule.met) && fault.is_none() {
                fault = Some(rule.fault.clone());
            }
        }
        self.seen.push(Seen {
            method: head.method().to_owned(),
            path: head.path().to_owned(),
            query: without_signatures(head.query()),
            headers: RECORDED
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), head.header(name)?.to_owned())))
                .collect(),
            fault: fault.clone(),
        });
        fault
    }
}

/// A query whose `X-Amz-` parameters have lost their values: in a signed URL they are the key.
fn without_signatures(query: &str) -> String {
    let kept = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().starts_with("x-amz-") => name,
        _ => pair,
    });
    kept.collect::<Vec<_>>().join("&")
}
