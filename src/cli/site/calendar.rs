//! The time axis of a plot: days, weeks, months or years, whichever are few enough to be seen, and where its round ticks
//! stand.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike, Days, Months, NaiveDate};

/// Bars that a plot has at most.
const MOST_BINS: usize = 100;

/// One record in so many, at each end, does not decide what the axis shows.
const FEW_PER: u64 = 200;

/// Days.
const LEAST_REACH: i32 = 31;

/// Dates off the axis that are named.
const FEW_DATES: usize = 3;

/// Labels that fit under a plot, of short dates and of whole ones.
const MOST_TICKS: usize = 9;
const MOST_WHOLE_TICKS: usize = 6;

/// What one bar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Day,
    Week,
    Month,
    Year,
}

impl Step {
    const ALL: [Step; 4] = [Step::Day, Step::Week, Step::Month, Step::Year];

    pub fn name(self) -> &'static str {
        match self {
            Step::Day => "day",
            Step::Week => "week",
            Step::Month => "month",
            Step::Year => "year",
        }
    }

    /// The first day of the bin that a day lies in; weeks begin on Monday.
    fn start(self, day: NaiveDate) -> NaiveDate {
        let start = match self {
            Step::Day => Some(day),
            Step::Week => day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))),
            Step::Month => day.with_day(1),
            Step::Year => day.with_ordinal(1),
        };
        start.unwrap_or(day)
    }

    fn next(self, start: NaiveDate) -> Option<NaiveDate> {
        match self {
            Step::Day => start.checked_add_days(Days::new(1)),
            Step::Week => start.checked_add_days(Days::new(7)),
            Step::Month => start.checked_add_months(Months::new(1)),
            Step::Year => start.checked_add_months(Months::new(12)),
        }
    }
}

/// The bins of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    pub step: Step,
    pub starts: Vec<NaiveDate>,
}

impl Axis {
    /// The finest axis on which all dates (days since the epoch, with how many records each has) have their place, but for
    /// the few that lie far off all others, such as those of a clock that was not set.
    pub fn of(counts: &BTreeMap<i32, u64>) -> Option<Axis> {
        let days: BTreeSet<NaiveDate> = usual(counts)?.filter_map(|date| day(*date)).collect();
        let (first, last) = (*days.first()?, *days.last()?);
        // what is only ever counted by month is shown by month
        let is_coarse = |step: &Step| days.len() > 1 && days.iter().all(|day| step.start(*day) == *day);
        let coarse = [Step::Year, Step::Month].into_iter().find(is_coarse);
        for step in Step::ALL.into_iter().skip_while(|step| coarse.is_some_and(|coarse| *step != coarse)) {
            let bins = std::iter::successors(Some(step.start(first)), |start| step.next(*start));
            let starts: Vec<NaiveDate> =
                bins.take_while(|start| *start <= last).take(MOST_BINS + 1).collect();
            if starts.len() <= MOST_BINS {
                return Some(Axis { step, starts });
            }
        }
        // centuries: years that have data, the newest ones
        let years: BTreeSet<NaiveDate> = days.iter().map(|day| Step::Year.start(*day)).collect();
        let mut starts: Vec<NaiveDate> = years.into_iter().rev().take(MOST_BINS).collect();
        starts.reverse();
        Some(Axis { step: Step::Year, starts })
    }

    /// Records of dates that have no place on the axis, and a few of these dates.
    pub fn left_out(&self, counts: &BTreeMap<i32, u64>) -> Option<String> {
        let outside: Vec<(&i32, &u64)> =
            counts.iter().filter(|(date, _)| self.bin(**date).is_none()).collect();
        let records: u64 = outside.iter().map(|(_, count)| **count).sum();
        let dates: Vec<String> =
            outside.iter().take(FEW_DATES).filter_map(|(date, _)| Some(day(**date)?.to_string())).collect();
        let more = if outside.len() > FEW_DATES { " and others" } else { "" };
        (records > 0).then(|| format!("Outside of the plot: {records} of {}{more}.", dates.join(", ")))
    }

    /// The bin of a date (days since the epoch).
    pub fn bin(&self, date: i32) -> Option<usize> {
        let start = self.step.start(day(date)?);
        self.starts.binary_search(&start).ok()
    }

    /// The bins as they are told in full.
    pub fn names(&self) -> Vec<String> {
        let format = match self.step {
            Step::Day | Step::Week => "%Y-%m-%d",
            Step::Month => "%Y-%m",
            Step::Year => "%Y",
        };
        self.starts.iter().map(|start| start.format(format).to_string()).collect()
    }

    /// What stands under the axis.
    pub fn title(&self) -> String {
        let of_year = match (self.only_year(), self.step) {
            (Some(year), Step::Day | Step::Week | Step::Month) => format!(" of {year}"),
            _ => String::new(),
        };
        let by = if self.step == Step::Week { "by its Monday, " } else { "" };
        format!("{}{of_year} ({by}UTC)", self.step.name())
    }

    fn only_year(&self) -> Option<i32> {
        let (first, last) = (self.starts.first()?.year(), self.starts.last()?.year());
        (first == last).then_some(first)
    }

    /// Bins that carry a label, at round dates.
    pub fn ticks(&self) -> Vec<(usize, String)> {
        type Rule = fn(NaiveDate) -> bool;
        let is_quarter: Rule = |day| day.day() <= 7 && day.month0() % 3 == 0;
        let is_year: Rule = |day| day.day() <= 7 && day.month0() == 0;
        let rules: Vec<Rule> = match self.step {
            Step::Day => vec![
                |_| true,
                |day| day.weekday().num_days_from_monday() == 0,
                |day| day.day() == 1 || day.day() == 15,
                |day| day.day() == 1,
            ],
            // the first week that begins in a month stands for it
            Step::Week => vec![|_| true, |day| day.day() <= 7, is_quarter, is_year],
            Step::Month => {
                vec![|_| true, is_quarter, is_year, |day| day.month0() == 0 && day.year() % 2 == 0]
            }
            Step::Year => vec![|_| true, |day| day.year() % 2 == 0, |day| day.year() % 5 == 0, |day| {
                day.year() % 20 == 0
            }],
        };
        let is_whole = matches!(self.step, Step::Day | Step::Week) && self.only_year().is_none();
        let most = if is_whole { MOST_WHOLE_TICKS } else { MOST_TICKS };
        let mut chosen: Vec<usize> = Vec::new();
        for rule in rules {
            let round = self.starts.iter().enumerate().filter(|(_, day)| rule(**day));
            let found: Vec<usize> = round.map(|(at, _)| at).collect();
            if (1..=most).contains(&found.len()) {
                chosen = found;
                break;
            }
        }
        if chosen.is_empty() {
            chosen = (0..self.starts.len()).step_by(self.starts.len().div_ceil(most).max(1)).collect();
        }
        let format = match (self.step, self.only_year()) {
            (Step::Day | Step::Week, Some(_)) => "%b %-d",
            (Step::Day | Step::Week, None) => "%Y-%m-%d",
            (Step::Month, Some(_)) => "%b",
            (Step::Month, None) => "%b %Y",
            (Step::Year, _) => "%Y",
        };
        chosen.into_iter().map(|at| (at, self.starts[at].format(format).to_string())).collect()
    }
}

/// The dates but for those that are few and far off: further from where nearly all records lie than these reach, and
/// than a month.
fn usual(counts: &BTreeMap<i32, u64>) -> Option<impl Iterator<Item = &i32>> {
    let few = counts.values().sum::<u64>() / FEW_PER;
    let mut seen = [0, 0];
    let first = counts.iter().find(|(_, count)| is_beyond(&mut seen[0], **count, few))?.0;
    let last = counts.iter().rfind(|(_, count)| is_beyond(&mut seen[1], **count, few))?.0;
    let reach = last.saturating_sub(*first).max(LEAST_REACH);
    Some(counts.range(first.saturating_sub(reach)..=last.saturating_add(reach)).map(|(date, _)| date))
}

fn is_beyond(seen: &mut u64, count: u64, few: u64) -> bool {
    *seen += count;
    *seen > few
}

fn day(date: i32) -> Option<NaiveDate> {
    NaiveDate::from_epoch_days(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> i32 {
        NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap().to_epoch_days()
    }

    fn axis(first: &str, last: &str) -> Axis {
        Axis::of(&[first, last].map(|text| (date(text), 1)).into()).unwrap()
    }

    #[test]
    fn the_axis_is_as_fine_as_can_be_seen() {
        let days = axis("2025-07-03", "2025-08-31");
        assert_eq!((days.step, days.starts.len()), (Step::Day, 60));
        assert_eq!(days.title(), "day of 2025 (UTC)");
        let labels =
            |axis: &Axis| -> Vec<String> { axis.ticks().into_iter().map(|(_, label)| label).collect() };
        assert_eq!(labels(&days)[..3], ["Jul 7", "Jul 14", "Jul 21"]);
        let weeks = axis("2025-01-02", "2025-08-31");
        assert_eq!((weeks.step, weeks.starts.len()), (Step::Week, 35));
        assert_eq!(labels(&axis("2025-01-09", "2025-08-31"))[..2], ["Jan 6", "Feb 3"]);
        let months = axis("2019-03-09", "2025-08-31");
        assert_eq!((months.step, months.starts.len()), (Step::Month, 78));
        assert_eq!(labels(&months), ["Jan 2020", "Jan 2021", "Jan 2022", "Jan 2023", "Jan 2024", "Jan 2025"]);
        assert_eq!(axis("1970-01-01", "2025-08-31").step, Step::Year);
        let by_month = axis("2025-06-01", "2025-08-01");
        assert_eq!((by_month.step, by_month.starts.len()), (Step::Month, 3));
        assert_eq!(axis("2024-01-01", "2025-01-01").step, Step::Year);
    }

    #[test]
    fn dates_that_are_far_off_do_not_squash_the_others() {
        let mut counts: BTreeMap<i32, u64> = (0..10).map(|at| (date("2025-03-01") + at, 50)).collect();
        counts.extend([(date("1970-01-01"), 1), (date("2199-05-05"), 1)]);
        let days = Axis::of(&counts).unwrap();
        assert_eq!((days.step, days.starts.len()), (Step::Day, 10));
        let told = days.left_out(&counts).unwrap();
        assert_eq!(told, "Outside of the plot: 2 of 1970-01-01, 2199-05-05.");
        // what is not rare is shown, however far off
        counts.insert(date("1970-01-01"), 100);
        assert_eq!(Axis::of(&counts).unwrap().step, Step::Year);
        let far = axis("0001-01-01", "9999-12-31");
        assert_eq!(
            (far.names(), far.left_out(&[(0, 1)].into()).is_some()),
            (vec!["0001".to_owned(), "9999".to_owned()], true)
        );
        assert_eq!(far.bin(date("9999-06-01")), Some(1));
        assert_eq!(Axis::of(&BTreeMap::new()), None);
    }
}
