//! Faults: what networks, proxies and a busy service do to requests, derived from a seed.
//!
//! [`Faults`] says how likely each kind is, and may script single ones with [`Rule`]s. What happens to a request
//! depends only on the seed and the number of the request ([`Faults::draw`]), so a run with the same order of requests
//! fails in the same places. There are four kinds of faults, which a client must treat differently: the request was
//! refused before any work was done; the answer was damaged on its way; **the work was done and the answer was lost**;
//! or **the answer was an error, and the work is done seconds later**.
//!
//! A client can notice all but two of them in the answer itself. [`Fault::OtherBody`] is a complete but wrong body:
//! only what the client knows of the item reveals it. [`Fault::ShortBody`] may go unnoticed by any client, so a bad day
//! does not include it. Two kinds are not faults of the service, but people who change something at a bad moment. Some
//! kinds are attacks on the client; they never happen by chance.

mod careless;
mod hostile;
mod inject;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::Method;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use strongroom_corpora::rng::Rng;

pub use inject::inject;

/// One way in which a request can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// 429 with `Retry-After`.
    TooManyRequests,
    /// 429 in its older form: without `Retry-After`, with code `UnknownError` and no message.
    TooManyRequestsBare,
    /// 401 `InvalidAuthenticationToken`, although the token is good.
    InvalidToken,
    /// 400 "IO error during request payload read".
    PayloadRead,
    /// 404 without a body.
    NotFoundEmpty,
    /// 404 `ErrorItemNotFound`, as replication delays cause it for an item that was just created.
    NotFound,
    /// 500 `ErrorInternalServerTransientError`.
    InternalError,
    /// 502 with a proxy's HTML page.
    BadGateway,
    /// 503 with `Retry-After`.
    Unavailable,
    /// 503 without a body.
    UnavailableEmpty,
    /// 504 without a body.
    GatewayTimeout,
    /// 410 `SyncStateNotFound` for a delta link, which is invalid from then on.
    DeltaExpired,
    /// The connection is reset before any answer; no work is done.
    ResetBefore,
    /// The answer comes late.
    Slow,
    /// The answer comes in small pieces, with pauses.
    Trickle,
    /// The work is done; the connection is reset instead of an answer.
    LostAnswer,
    /// The work is done; the answer is 504 without a body.
    LostAnswerTimeout,
    /// The answer is 504 without a body; the work is done some time later.
    LateWork,
    /// The connection is reset in the middle of the body.
    ResetInBody,
    /// The connection is closed in the middle of the body.
    CloseInBody,
    /// A complete HTTP answer with only half of its JSON.
    TruncatedJson,
    /// A complete HTTP answer with something else than the expected JSON.
    InvalidJson,
    /// 200 without a body, in place of JSON.
    EmptyJson,
    /// Half of the body, without `Content-Length` or chunks; then the connection is closed in an orderly way.
    CutWithoutLength,
    /// The same, from a gateway that announced `Connection: keep-alive`.
    CutWithoutLengthKeepAlive,
    /// 200 with another body: an error as JSON, a page of HTML, nothing, or that of another item.
    OtherBody,
    /// A complete HTTP answer with only the beginning of the body.
    ShortBody,
    /// The requested message, contact, event or task changes as soon as it was read.
    ItemChanges,
    /// The requested folder, calendar or task list is deleted just before.
    FolderVanishes,
    /// The last byte of a file or of a photo that is written is another one.
    ChangesBytes,
    /// Half of the text of a message is written, or of the notes of a contact.
    CutsText,
    /// The first file of a message is called something else.
    RenamesFile,
    /// The first file of a message is not written.
    DropsFile,
    /// The first two files of a message change places.
    SwapsFiles,
    /// The link to the next page points to this page.
    LinkToItself,
    /// The link for later changes points to another host.
    StrayLink,
    /// The page has millions of rows.
    ManyRows,
    /// The page reports five thousand removed messages, and so does the next page, forever.
    EndlessRemovals,
    /// The body never ends.
    Endless,
    /// The body arrives byte by byte.
    Drip,
}

impl Fault {
    /// Every kind of fault.
    pub const ALL: [Fault; 40] = [
        Fault::TooManyRequests,
        Fault::TooManyRequestsBare,
        Fault::InvalidToken,
        Fault::PayloadRead,
        Fault::NotFoundEmpty,
        Fault::NotFound,
        Fault::InternalError,
        Fault::BadGateway,
        Fault::Unavailable,
        Fault::UnavailableEmpty,
        Fault::GatewayTimeout,
        Fault::DeltaExpired,
        Fault::ResetBefore,
        Fault::Slow,
        Fault::Trickle,
        Fault::LostAnswer,
        Fault::LostAnswerTimeout,
        Fault::LateWork,
        Fault::ResetInBody,
        Fault::CloseInBody,
        Fault::TruncatedJson,
        Fault::InvalidJson,
        Fault::EmptyJson,
        Fault::CutWithoutLength,
        Fault::CutWithoutLengthKeepAlive,
        Fault::OtherBody,
        Fault::ShortBody,
        Fault::ItemChanges,
        Fault::FolderVanishes,
        Fault::ChangesBytes,
        Fault::CutsText,
        Fault::RenamesFile,
        Fault::DropsFile,
        Fault::SwapsFiles,
        Fault::LinkToItself,
        Fault::StrayLink,
        Fault::ManyRows,
        Fault::EndlessRemovals,
        Fault::Endless,
        Fault::Drip,
    ];

    /// Returns whether the same request succeeds if it is sent again.
    fn goes_away(self) -> bool {
        use Fault::{FolderVanishes, ItemChanges, NotFound, NotFoundEmpty};
        !matches!(self, NotFoundEmpty | NotFound | ItemChanges | FolderVanishes)
            && !self.is_careless()
            && !self.is_hostile()
    }

    /// Returns whether something else is written than was given.
    pub fn is_careless(self) -> bool {
        self >= Fault::ChangesBytes && !self.is_hostile()
    }

    /// Returns whether the fault is an attack on the client, not something that a network does.
    pub fn is_hostile(self) -> bool {
        self >= Fault::LinkToItself
    }

    /// Returns whether the fault needs a connection of its own. The requests inside a batch have none.
    fn breaks_connection(self) -> bool {
        matches!(
            self,
            Fault::ResetBefore
                | Fault::LostAnswer
                | Fault::ResetInBody
                | Fault::CloseInBody
                | Fault::Trickle
                | Fault::CutWithoutLength
                | Fault::CutWithoutLengthKeepAlive
        )
    }

    /// Returns whether the client may send the same request again without checking what the first one did.
    pub fn is_before_work(self) -> bool {
        self <= Fault::ResetBefore
    }
}

/// A scripted fault. It hits chosen requests, regardless of chance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// The method; any method if absent.
    #[serde(default)]
    pub method: Option<String>,
    /// A text that the path and query must contain, percent-decoded.
    pub contains: String,
    /// Number of such requests to leave alone first.
    #[serde(default)]
    pub skip: u32,
    /// Number of requests to break after that; all if absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// The fault that these requests get.
    pub fault: Fault,
}

/// The faults to inject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Faults {
    /// Seed of all chance.
    pub seed: u64,
    /// Probability of each kind, from 0 to 1. Their sum is at most 1.
    pub rates: BTreeMap<Fault, f64>,
    /// Maximum number of times in a row that chance may break the same request. The next attempt then succeeds.
    pub in_a_row_max: u32,
    /// Duration of slow answers, in milliseconds.
    pub slow_ms: u64,
    /// Delay of late work after the answer, in milliseconds.
    pub late_ms: u64,
    /// Value of `Retry-After` in seconds.
    pub retry_after_s: u64,
    /// Whether requests to the authority may fail by chance, too.
    pub on_sign_in: bool,
    /// Scripted faults. The first rule that matches a request decides.
    pub rules: Vec<Rule>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            seed: 0,
            rates: BTreeMap::new(),
            in_a_row_max: 3,
            slow_ms: 1_000,
            late_ms: 2_000,
            retry_after_s: 1,
            on_sign_in: false,
            rules: Vec::new(),
        }
    }
}

impl Faults {
    /// Returns the faults of a bad day: about one request in `one_in` fails, in every way that a retry can cope with.
    ///
    /// It does not include a 404, because its meaning depends on the request, nor faults that change the tenant or that
    /// nobody can notice.
    pub fn bad_day(seed: u64, one_in: u32) -> Self {
        let kinds = Fault::ALL.into_iter().filter(|fault| fault.goes_away() && *fault != Fault::ShortBody);
        let rate = 1.0 / f64::from(one_in.max(1)) / kinds.clone().count() as f64;
        Self { seed, rates: kinds.map(|fault| (fault, rate)).collect(), slow_ms: 20, ..Self::default() }
    }

    /// Adds a scripted fault for the first `times` requests whose URL contains `contains`.
    pub fn with_rule(mut self, contains: &str, times: u32, fault: Fault) -> Self {
        self.rules.push(Rule { method: None, contains: contains.into(), skip: 0, times: Some(times), fault });
        self
    }

    /// Returns the fault that request `number` gets by chance, if any.
    pub fn draw(&self, number: u64) -> Option<Fault> {
        let mut left = fraction(&mut self.rng(number));
        for (&fault, &rate) in &self.rates {
            if left < rate {
                return Some(fault);
            }
            left -= rate;
        }
        None
    }

    /// Returns the random numbers for the details of request `number`.
    fn rng(&self, number: u64) -> Rng {
        Rng::new(self.seed.rotate_left(32) ^ number)
    }
}

/// Returns a number from 0 to 1, without 1.
fn fraction(rng: &mut Rng) -> f64 {
    // An f64 holds 53 bits.
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// The parts of a request that decide about its fault.
#[derive(Debug, Clone)]
struct Subject {
    method: Method,
    /// Path and query, percent-decoded.
    url: String,
    /// True if the request came over a connection of its own, not in a batch.
    has_connection: bool,
}

impl Subject {
    fn is_delta_link(&self) -> bool {
        self.url.contains("/delta") && (self.url.contains("$deltatoken=") || self.url.contains("$skiptoken="))
    }

    fn is_control(&self) -> bool {
        self.url.starts_with("/control/")
    }

    fn is_sign_in(&self) -> bool {
        self.url.contains("/oauth2/")
    }

    fn fits(&self, fault: Fault) -> bool {
        match fault {
            Fault::DeltaExpired => self.is_delta_link(),
            Fault::PayloadRead => self.method != Method::GET && self.method != Method::DELETE,
            // A GET does no work that could be late.
            Fault::LateWork => self.method != Method::GET && !self.is_sign_in(),
            Fault::ItemChanges => {
                let items = ["/messages/", "/contacts/", "/events/", "/tasks/"];
                items.iter().any(|items| self.url.contains(items)) && self.method == Method::GET
            }
            Fault::FolderVanishes => {
                let folders = ["/mailFolders/", "/contactFolders/", "/calendars/", "/todo/lists/"];
                folders.iter().any(|folders| self.url.contains(folders)) && self.method == Method::GET
            }
            // For other answers, a client has no means to recognise a wrong body.
            Fault::OtherBody => self.is_message_bytes(),
            // Each of these means something else at the token endpoint.
            Fault::InvalidToken | Fault::NotFound | Fault::NotFoundEmpty => !self.is_sign_in(),
            _ => self.has_connection || !fault.breaks_connection(),
        }
    }

    /// Returns whether the request asks for the bytes of a message.
    fn is_message_bytes(&self) -> bool {
        let path = self.url.split('?').next().unwrap_or_default();
        let is_message = path.contains("/messages/") && !path.contains("/attachments/");
        self.method == Method::GET && is_message && path.ends_with("/$value")
    }

    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.method.as_str(), &self.url).hash(&mut hasher);
        hasher.finish()
    }
}

/// Decides about requests, and remembers its decisions.
#[derive(Debug, Default)]
pub struct FaultEngine {
    faults: RwLock<Arc<Faults>>,
    number: AtomicU64,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Number of requests that matched each rule so far.
    met: Vec<u32>,
    /// Number of times in a row that chance broke a request.
    streaks: HashMap<u64, u32>,
    dead_links: HashSet<u64>,
    injected: BTreeMap<Fault, u64>,
}

impl FaultEngine {
    /// Creates an engine that injects `faults`.
    pub fn new(faults: Faults) -> Self {
        let engine = Self::default();
        engine.set(faults);
        engine
    }

    /// Replaces the faults, and numbers requests from zero again. Invalid delta links stay invalid.
    pub fn set(&self, faults: Faults) {
        let mut memory = self.memory.lock();
        memory.met = vec![0; faults.rules.len()];
        memory.streaks.clear();
        self.number.store(0, Ordering::Relaxed);
        *self.faults.write() = Arc::new(faults);
    }

    /// Returns the current faults.
    pub fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.faults.read())
    }

    /// Sets the counts of injected faults to zero.
    pub fn reset_injected(&self) {
        self.memory.lock().injected.clear();
    }

    /// Returns how often each fault was injected.
    pub fn injected(&self) -> BTreeMap<Fault, u64> {
        self.memory.lock().injected.clone()
    }

    /// Decides about the next request. Returns its fault, and random numbers for the details.
    fn decide(&self, subject: &Subject) -> (Option<Fault>, Rng) {
        if subject.is_control() {
            return (None, Rng::new(0));
        }
        let faults = self.faults();
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut rng = faults.rng(number);
        rng.next_u64(); // skip the number that decided about the fault
        let mut memory = self.memory.lock();
        let fault = memory.decide(&faults, number, subject);
        if let Some(fault) = fault {
            *memory.injected.entry(fault).or_default() += 1;
        }
        (fault, rng)
    }
}

impl Memory {
    fn decide(&mut self, faults: &Faults, number: u64, subject: &Subject) -> Option<Fault> {
        if !self.dead_links.is_empty() && self.dead_links.contains(&subject.key()) {
            return Some(Fault::DeltaExpired);
        }
        let fault = match self.scripted(&faults.rules, subject) {
            Some(fault) => Some(fault),
            None => self.drawn(faults, number, subject),
        };
        if fault == Some(Fault::DeltaExpired) {
            self.dead_links.insert(subject.key());
        }
        fault
    }

    fn scripted(&mut self, rules: &[Rule], subject: &Subject) -> Option<Fault> {
        for (rule, met) in rules.iter().zip(&mut self.met) {
            let is_met =
                rule.method.as_deref().is_none_or(|method| method.eq_ignore_ascii_case(subject.method.as_str()))
                    && subject.url.contains(&rule.contains);
            if !is_met {
                continue;
            }
            let before = *met;
            *met += 1;
            if before >= rule.skip && rule.times.is_none_or(|times| before - rule.skip < times) {
                return Some(rule.fault);
            }
        }
        None
    }

    fn drawn(&mut self, faults: &Faults, number: u64, subject: &Subject) -> Option<Fault> {
        if faults.rates.is_empty() || (subject.is_sign_in() && !faults.on_sign_in) {
            return None;
        }
        let fault = faults.draw(number).filter(|&fault| subject.fits(fault));
        let key = subject.key();
        let Some(fault) = fault else {
            self.streaks.remove(&key);
            return None;
        };
        // A slow answer is not a failure, so it does not count as a broken attempt.
        if matches!(fault, Fault::Slow | Fault::Trickle) {
            return Some(fault);
        }
        let streak = self.streaks.entry(key).or_default();
        if *streak >= faults.in_a_row_max {
            self.streaks.remove(&key);
            return None;
        }
        *streak += 1;
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str) -> Subject {
        Subject { method: Method::GET, url: url.into(), has_connection: true }
    }

    fn decide(engine: &FaultEngine, url: &str) -> Option<Fault> {
        engine.decide(&get(url)).0
    }

    #[test]
    fn the_same_seed_breaks_the_same_requests() {
        let faults = Faults::bad_day(7, 3);
        let drawn: Vec<_> = (0..1000).map(|number| faults.draw(number)).collect();
        assert_eq!(drawn, (0..1000).map(|number| Faults::bad_day(7, 3).draw(number)).collect::<Vec<_>>());
        assert_ne!(drawn, (0..1000).map(|number| Faults::bad_day(8, 3).draw(number)).collect::<Vec<_>>());
        let broken = drawn.iter().flatten().count();
        assert!((250..420).contains(&broken), "one in three of 1000 is not {broken}");
        for fault in faults.rates.keys() {
            assert!(drawn.contains(&Some(*fault)), "{fault:?} never happened");
        }
    }

    #[test]
    fn no_request_is_broken_for_ever() {
        let faults = Faults { rates: [(Fault::GatewayTimeout, 1.0)].into(), in_a_row_max: 2, ..Faults::default() };
        let engine = FaultEngine::new(faults);
        let answers: Vec<bool> = (0..6).map(|_| decide(&engine, "/v1.0/users").is_some()).collect();
        assert_eq!(answers, [true, true, false, true, true, false]);
        assert_eq!(engine.injected(), BTreeMap::from([(Fault::GatewayTimeout, 4)]));
    }

    #[test]
    fn a_rule_breaks_the_requests_it_names() {
        let rule = Rule {
            method: Some("get".into()),
            contains: "/attachments".into(),
            skip: 1,
            times: Some(2),
            fault: Fault::NotFound,
        };
        let engine = FaultEngine::new(Faults { rules: vec![rule], ..Faults::default() });
        let mut post = get("/v1.0/users/a/messages/m/attachments");
        post.method = Method::POST;
        assert_eq!(engine.decide(&post).0, None);
        let answers: Vec<_> = (0..4).map(|_| decide(&engine, "/v1.0/users/a/messages/m/attachments")).collect();
        assert_eq!(answers, [None, Some(Fault::NotFound), Some(Fault::NotFound), None]);
        assert_eq!(decide(&engine, "/v1.0/users"), None);
    }

    #[test]
    fn an_expired_delta_link_stays_dead() {
        let engine = FaultEngine::new(Faults::default().with_rule("/delta", 1, Fault::DeltaExpired));
        let link = "/v1.0/users/a/mailFolders/f/messages/delta?$deltatoken=x";
        assert_eq!(decide(&engine, link), Some(Fault::DeltaExpired));
        engine.set(Faults::default());
        assert_eq!(decide(&engine, link), Some(Fault::DeltaExpired));
        assert_eq!(decide(&engine, "/v1.0/users/a/mailFolders/f/messages/delta?$deltatoken=y"), None);
    }

    #[test]
    fn faults_befall_only_what_they_fit() {
        let only = |fault| FaultEngine::new(Faults { rates: [(fault, 1.0)].into(), ..Faults::default() });
        assert_eq!(decide(&only(Fault::DeltaExpired), "/v1.0/users/a/mailFolders/f/messages/delta"), None);
        assert_eq!(decide(&only(Fault::InternalError), "/t/oauth2/v2.0/token"), None);
        let inner = Subject { has_connection: false, ..get("/v1.0/users") };
        assert_eq!(only(Fault::ResetInBody).decide(&inner).0, None);
        assert_eq!(only(Fault::InternalError).decide(&inner).0, Some(Fault::InternalError));
    }

    #[test]
    fn faults_are_written_in_json_as_they_are_documented() {
        let text = r#"{"seed": 3, "rates": {"tooManyRequests": 0.1, "closeInBody": 0.05},
                       "rules": [{"contains": "/$value", "fault": "lostAnswer", "times": 1}]}"#;
        let faults: Faults = serde_json::from_str(text).unwrap();
        assert_eq!(faults.rates[&Fault::CloseInBody], 0.05);
        assert_eq!(faults.rules[0].fault, Fault::LostAnswer);
        assert!(serde_json::from_str::<Faults>(r#"{"rate": {}}"#).is_err());
    }
}
