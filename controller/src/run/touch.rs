//! When a platform may be touched, beside the order and the barriers: not before the canaries are through, not after too many platforms
//! ended badly, not outside the maintenance window, not on checks that are old.
//!
//! What depends on events alone is decided in [`RunState`]; what depends on the clock is told to it before each decision.

use super::state::{PlatformState, RunState};
use crate::plan::{Expected, words};
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use proto::event::{Conditions, RunOutcome};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is added to the expected time of a platform, in percent: a night in production is not a rehearsal.
const MARGIN: u64 = 20;

/// How often checks are made again in a controller's life before a person has to look: they take longer than they may be old.
const RECHECKS: u32 = 3;

/// Why a platform is not touched now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// It may be later, in this run.
    Wait,
    /// Its checks are too old: they are made again first. Says how old.
    Recheck(String),
    /// It may not in this run: it is over for now, untouched.
    End(RunOutcome, String),
}

/// A daily maintenance window, in local time; it may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    from: Time,
    to: Time,
}

impl Window {
    /// Reads `22:00-04:00`.
    ///
    /// # Errors
    /// A text that says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is no window: write FROM-TO in local time, as 22:00-04:00");
        let time = |text: &str| Time::strptime("%H:%M", text.trim()).map_err(|_| expected());
        let (from, to) = text.split_once('-').ok_or_else(expected)?;
        let (from, to) = (time(from)?, time(to)?);
        if from == to { Err(format!("the window `{text}` has no end: give two different times")) } else { Ok(Self { from, to }) }
    }

    /// The window that `now` is in, or else the next one: when it opens and when it closes.
    fn around(&self, now: &Zoned) -> Option<(Timestamp, Timestamp)> {
        let on = |days: i64| {
            let day = now.date().checked_add(days.days()).ok()?;
            let end = if self.to > self.from { day } else { day.checked_add(1.days()).ok()? };
            let at = |day: jiff::civil::Date, time: Time| {
                Some(day.to_datetime(time).to_zoned(now.time_zone().clone()).ok()?.timestamp())
            };
            Some((at(day, self.from)?, at(end, self.to)?))
        };
        (-1..=1).filter_map(on).find(|(_, closes)| *closes > now.timestamp())
    }
}

/// What the clock has to say about touching platforms.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    window: Option<Window>,
    fresh: Option<Duration>,
    /// What is said about each platform: how long it takes from `stop` through `verify`, and where that is known from.
    expected: Expected,
    zone: Option<TimeZone>,
}

impl Clock {
    /// `expected`: how long platforms took earlier, and where that is known from. The operator's own word counts more.
    ///
    /// # Errors
    /// The window cannot be understood.
    pub fn new(conditions: &Conditions, earlier: Expected, platforms: &[String]) -> Result<Self, String> {
        let mut expected = earlier;
        if let Some(seconds) = conditions.expected_s {
            let said = (Duration::from_secs(seconds), "--expect".to_owned());
            expected.extend(platforms.iter().map(|platform| (platform.clone(), said.clone())));
        }
        Ok(Self {
            window: conditions.window.as_deref().map(Window::parse).transpose()?,
            fresh: conditions.fresh_s.map(Duration::from_secs),
            expected,
            zone: None,
        })
    }

    /// As a workstation in this time zone has it.
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone: Some(zone), ..self }
    }

    fn local(&self, now: Timestamp) -> Zoned {
        now.to_zoned(self.zone.clone().unwrap_or_else(TimeZone::system))
    }

    /// Whether a platform, whose preflight was judged at `checked`, may be touched now. Checks are looked at last: they are made again only
    /// where nothing else is in the way.
    pub fn hold(&self, platform: &str, checked: Option<Timestamp>, now: Timestamp) -> Option<Hold> {
        self.outside_window(platform, now).or_else(|| self.stale(checked, now))
    }

    fn stale(&self, checked: Option<Timestamp>, now: Timestamp) -> Option<Hold> {
        if let (Some(fresh), Some(checked)) = (self.fresh, checked)
            && is_older(checked, now, fresh)
        {
            let age = words(now.duration_since(checked).unsigned_abs());
            return Some(Hold::Recheck(format!("its checks are {age} old, and --fresh is {}", words(fresh))));
        }
        None
    }

    fn outside_window(&self, platform: &str, now: Timestamp) -> Option<Hold> {
        let (opens, closes) = self.window?.around(&self.local(now))?;
        if now < opens {
            return Some(Hold::Wait);
        }
        let left = closes.duration_since(now).unsigned_abs();
        let until = self.local(closes).strftime("%H:%M").to_string();
        let Some((takes, from)) = self.expected.get(platform) else {
            let message = format!(
                "how long it takes is not known, and the window ends at {until}: nothing was touched. Rehearse it first, or say it with --expect DURATION"
            );
            return Some(Hold::End(RunOutcome::Waiting, message));
        };
        let with_margin = takes.saturating_add(Duration::from_secs(takes.as_secs() * MARGIN / 100));
        (with_margin > left).then(|| {
            let message = format!(
                "stop through verify takes {} ({from}), {} with a margin; {} are left until {until}: nothing was touched. `caravan resume` in the next window",
                words(*takes),
                words(with_margin),
                words(left)
            );
            Hold::End(RunOutcome::Waiting, message)
        })
    }

    /// The end of the window that is open now, and how long until it opens or closes.
    pub(super) fn window(&self, now: Timestamp) -> Option<(Option<Timestamp>, Duration)> {
        let (opens, closes) = self.window?.around(&self.local(now))?;
        let next = if now < opens { opens } else { closes };
        Some(((now >= opens).then_some(closes), next.duration_since(now).unsigned_abs()))
    }
}

fn is_older(checked: Timestamp, now: Timestamp, limit: Duration) -> bool {
    SignedDuration::try_from(limit).is_ok_and(|limit| now.duration_since(checked) > limit)
}

fn checked(platform: &PlatformState) -> Option<Timestamp> {
    platform.checked.as_ref()?.parse().ok()
}

impl RunState {
    /// Platforms whose next stage is the first one that touches them, with the time when their preflight was judged.
    pub(super) fn untouched(&self) -> Vec<(usize, &str, Option<Timestamp>)> {
        let waiting = |(_, platform): &(usize, &PlatformState)| platform.end.is_none() && platform.is_about_to_be_touched();
        let all = self.platforms.iter().enumerate();
        all.filter(waiting).map(|(number, platform)| (number, platform.name.as_str(), checked(platform))).collect()
    }

    /// Whether a platform is in the middle of what touches it.
    pub(super) fn any_touched(&self) -> bool {
        self.platforms.iter().any(PlatformState::is_touched)
    }

    /// What the clock says about platforms that are about to be touched.
    pub(super) fn set_holds(&mut self, holds: BTreeMap<usize, Hold>) {
        self.holds = holds;
    }

    /// Why a platform that is about to be touched may not be, yet or at all.
    pub(super) fn hold(&self, platform: usize) -> Option<Hold> {
        let conditions = &self.bounds.conditions;
        let name = &self.platforms[platform].name;
        let takes_part = |p: &PlatformState| self.bounds.platforms.contains(&p.name);
        // One that was rolled back takes no part any more, and how it ended is how it counts.
        let bad = |p: &&PlatformState| match p.end {
            Some(end) if takes_part(p) => !matches!(end, RunOutcome::Ok | RunOutcome::Waiting),
            _ => p.was_bad && !takes_part(p),
        };
        if !conditions.canaries.contains(name) {
            let canaries = || self.platforms.iter().filter(|p| conditions.canaries.contains(&p.name));
            if let Some(failed) = canaries().find(|p| bad(p) || !takes_part(p)) {
                let message = format!("the canary {} did not end well: nothing was touched", failed.name);
                return Some(Hold::End(RunOutcome::Stopped, message));
            }
            if let Some(waiting) = canaries().find(|p| p.end == Some(RunOutcome::Waiting)) {
                let message = format!("the canary {} waits for a person: nothing was touched", waiting.name);
                return Some(Hold::End(RunOutcome::Waiting, message));
            }
            if canaries().any(|p| p.end.is_none()) {
                return Some(Hold::Wait);
            }
        }
        if let Some(budget) = conditions.failures {
            let failed: Vec<&str> = self.platforms.iter().filter(bad).map(|p| p.name.as_str()).collect();
            if failed.len() > budget as usize {
                let message = format!("{} ended badly, more than --max-failures allows: nothing was touched", failed.join(", "));
                return Some(Hold::End(RunOutcome::Stopped, message));
            }
            // Those that ended badly in the middle before a controller took the run up again have another chance, and come first. One that
            // was not touched either is not waited for: two of them would wait for each other.
            let open = self.platforms.iter().filter(|p| p.was_bad && p.is_touched()).count();
            if failed.len() + open > budget as usize {
                return Some(Hold::Wait);
            }
        }
        match self.holds.get(&platform)? {
            Hold::Recheck(age) if self.platforms[platform].rechecks >= RECHECKS => {
                let message = format!("{age}, and they were made {RECHECKS} times: nothing was touched. Give --fresh more time");
                Some(Hold::End(RunOutcome::Waiting, message))
            }
            hold => Some(hold.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn clock(window: &str, takes: Option<u64>) -> Clock {
        let conditions = Conditions { window: Some(window.to_owned()), fresh_s: Some(4 * 3600), ..Conditions::default() };
        let earlier = takes.map(|minutes| ("emea".to_owned(), (Duration::from_secs(minutes * 60), "rehearsal x".to_owned())));
        Clock::new(&conditions, earlier.into_iter().collect(), &[]).unwrap().in_zone(TimeZone::UTC)
    }

    #[test]
    fn windows_are_read_and_nonsense_is_refused() {
        for good in ["22:00-04:00", " 1:30 - 05:00", "00:00-23:59"] {
            assert!(Window::parse(good).is_ok(), "{good}");
        }
        for bad in ["22:00", "22-04", "24:30-04:00", "22:00-22:00", "a-b", ""] {
            assert!(Window::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_platform_starts_only_if_it_fits_with_a_margin() {
        let night = clock("22:00-04:00", Some(100));
        let hold = |clock: &Clock, now: &str| clock.hold("emea", Some(at(now)), at(now));
        assert_eq!(hold(&night, "2026-11-27T21:59:00Z"), Some(Hold::Wait));
        assert_eq!(hold(&night, "2026-11-27T22:00:00Z"), None);
        // 120 minutes with the margin: until 02:00, also behind midnight.
        assert_eq!(hold(&night, "2026-11-28T02:00:00Z"), None);
        let Some(Hold::End(RunOutcome::Waiting, message)) = hold(&night, "2026-11-28T02:01:00Z") else { panic!("it does not fit") };
        assert!(
            message.contains("1 h 40 min (rehearsal x), 2 h 0 min with a margin; 1 h 59 min are left until 04:00"),
            "{message}"
        );
        assert_eq!(hold(&night, "2026-11-28T04:00:00Z"), Some(Hold::Wait), "the window is closed at its end");
        let end = at("2026-11-28T04:00:00Z");
        assert_eq!(night.window(at("2026-11-28T03:00:00Z")), Some((Some(end), Duration::from_secs(3600))));
        assert_eq!(night.window(at("2026-11-28T05:00:00Z")), Some((None, Duration::from_secs(17 * 3600))));
        let Some(Hold::End(_, unknown)) = hold(&clock("22:00-04:00", None), "2026-11-27T23:00:00Z") else { panic!("nobody knows") };
        assert!(unknown.contains("--expect"), "{unknown}");
        let day = clock("08:00-12:00", Some(100));
        assert_eq!(hold(&day, "2026-11-28T08:00:00Z"), None);
        assert_eq!(hold(&day, "2026-11-28T13:00:00Z"), Some(Hold::Wait));
    }

    #[test]
    fn old_checks_do_not_count() {
        let clock = clock("00:00-23:59", Some(1));
        let hold = |checked: &str| clock.hold("emea", Some(at(checked)), at("2026-11-28T10:00:00Z"));
        assert_eq!(hold("2026-11-28T06:00:00Z"), None);
        let Some(Hold::Recheck(age)) = hold("2026-11-28T05:59:59Z") else { panic!("they are old") };
        assert_eq!(age, "its checks are 4 h 0 min old, and --fresh is 4 h 0 min");
    }
}
