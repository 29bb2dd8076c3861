//! The site of `docs --html`, in a real browser.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::cassandra::wait_until;
use crate::data::Landed;
use crate::mini;
use crate::support::{Place, copy_folder, reference_lake, repository};

/// Writes the site of a place into a folder of the test.
fn site_of(place: &Place, folder: &Path) -> PathBuf {
    let told = place.medallion(&["docs", "--html", folder.to_str().unwrap()]).ok();
    assert!(told.starts_with("wrote "), "{told}");
    folder.join("index.html")
}

fn reference_site(folder: &tempfile::TempDir) -> PathBuf {
    site_of(&reference_lake().0, &folder.path().join("site"))
}

fn sensors() -> Place {
    let folder = repository().join("examples/sensors");
    let place = Place::of(&folder);
    copy_folder(&folder.join("landing"), &place.landing);
    place
}

/// The ids of the views, in order.
fn views(browser: &mut Browser) -> Vec<String> {
    browser.texts("[...document.querySelectorAll('.view')].map(view => view.id)")
}

fn go(browser: &mut Browser, id: &str) {
    browser.value(&format!("location.hash = {}", json!(id)));
    browser.settle();
}

/// What the page asks of every view, whatever project it is made of.
#[track_caller]
fn assert_sound(browser: &mut Browser, file: &Path) {
    let ids = browser.texts("[...document.querySelectorAll('[id]')].map(element => element.id)");
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "an id is used twice");
    let lost = browser.texts(
        "[...document.querySelectorAll('[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))\
         .filter(id => !document.getElementById(id))",
    );
    assert_eq!(lost, Vec::<String>::new(), "links that lead nowhere");
    let nameless = browser.texts(
        "[...document.querySelectorAll('svg, input, nav, [role=region], section, article')]\
         .filter(e => !(e.getAttribute('aria-label') || e.labels?.length || document.getElementById(e.getAttribute('aria-labelledby'))))\
         .map(e => e.outerHTML.slice(0, 200))",
    );
    assert_eq!(nameless, Vec::<String>::new(), "without a name");
    let headings = browser
        .texts("[...document.querySelectorAll('main h1, main h2, main h3, main h4')].map(h => h.tagName)");
    for pair in headings.windows(2) {
        let level = |name: &str| name[1..].parse::<i32>().unwrap();
        assert!(level(&pair[1]) - level(&pair[0]) <= 1, "{} follows {}", pair[1], pair[0]);
    }
    let without_scope = browser.number("document.querySelectorAll('th:not([scope])').length");
    assert_eq!(without_scope, 0.0);
    assert_eq!(browser.number("document.querySelectorAll('table:not(:has(caption))').length"), 0.0);
    let url = url::Url::from_file_path(file).unwrap().to_string();
    for asked in browser.requests() {
        assert!(asked == url || asked.starts_with(&format!("{url}#")), "the page asks for {asked}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn every_view_is_sound_and_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = reference_site(&folder);
    let files: Vec<_> =
        fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["index.html"]);
    let mut browser = Browser::start();
    browser.open(&file);
    assert_sound(&mut browser, &file);
    let all = views(&mut browser);
    for id in
        ["overview", "contract", "questions", "runs", "trends", "bronze.usage_events", "gold.org_profile"]
    {
        assert!(all.iter().any(|view| view == id), "{id} is missing in {all:?}");
    }
    // every declared table, column, question and rule is there
    let (place, _) = reference_lake();
    let tables: Value = place.medallion(&["lineage", "--as", "json"]).json();
    for table in tables["nodes"].as_array().unwrap() {
        let name = table.as_str().unwrap();
        if ["landing", "accepted", "versions"].iter().all(|zone| !name.starts_with(zone)) {
            assert!(all.iter().any(|view| view == name), "{name} has no section");
        }
    }
    for id in all {
        go(&mut browser, &id);
        let shown =
            browser.texts("[...document.querySelectorAll('.view:not([hidden])')].map(view => view.id)");
        assert_eq!(shown, std::slice::from_ref(&id));
        assert!(browser.text("document.title").contains("cloud_analytics"));
        assert_eq!(browser.number("document.querySelectorAll('.side a[aria-current]').length"), 1.0, "{id}");
    }
    go(&mut browser, "everything");
    assert_eq!(browser.number("document.querySelectorAll('.view[hidden]').length"), 0.0);
    assert!(browser.print() > 50_000);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_search_finds_tables_columns_and_questions() {
    let folder = tempfile::tempdir().unwrap();
    let file = reference_site(&folder);
    let mut browser = Browser::start();
    browser.open(&file);
    let names = "[...document.querySelectorAll('#results li a')].map(a => a.firstChild.textContent)";
    let shown = "[...document.querySelectorAll('.side > *')].filter(e => e.checkVisibility()).length";
    let before = browser.number(shown);
    assert!(before > 5.0);
    // by keyboard alone
    browser.press("/");
    assert_eq!(browser.text("document.activeElement.id"), "search");
    browser.write("revenue");
    let found = browser.texts(names);
    assert_eq!(found[0], "gold.revenue_monthly", "{found:?}");
    assert!(found.contains(&"monthly_revenue".to_owned()), "{found:?}");
    assert!(found.contains(&"gold.revenue_monthly.net_revenue_usd".to_owned()), "{found:?}");
    assert!(found.iter().all(|name| !name.contains("genai")), "{found:?}");
    assert_eq!(browser.number(shown), 1.0, "only results are left beside the page");
    assert!(browser.text("document.getElementById('found').textContent").ends_with("found"));
    browser.press("ArrowDown");
    browser.press("ArrowDown");
    browser.press("ArrowUp");
    browser.press("Enter");
    assert_eq!(browser.text("location.hash"), "#gold.revenue_monthly");
    assert_eq!(browser.number(shown), before, "the contents are back");
    assert_eq!(browser.text("document.activeElement.id"), "gold.revenue_monthly--title");
    // two words, in a column's meaning; its row is what is shown
    browser.click("#search");
    browser.write("mad baseline median");
    let found = browser.texts(names);
    assert!(found.contains(&"silver.usage_events.mad_score".to_owned()), "{found:?}");
    browser.click("#results li a");
    let row = browser.text("document.querySelector('tr:target').dataset.name");
    assert_eq!(row, found[0]);
    // the browser scrolls once the new address is told to the page
    wait_until("the row is seen", || {
        let top = browser.number("document.querySelector('tr:target').getBoundingClientRect().top");
        (0.0..900.0).contains(&top)
    });
    browser.press("/");
    browser.write("no such thing <b>");
    assert_eq!(browser.text("document.getElementById('found').textContent"), "0 found");
    browser.press("Escape");
    assert_eq!(browser.text("document.getElementById('search').value"), "");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_picture_leads_to_tables_and_lights_up_where_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = reference_site(&folder);
    let mut browser = Browser::start();
    browser.size(1600, 1000);
    browser.open(&file);
    let node = "#overview .node[data-node='gold.carbon_daily']";
    browser.point(node);
    let lit: BTreeSet<String> = browser
        .texts("[...document.querySelectorAll('#overview .node.on')].map(n => n.dataset.node)")
        .into_iter()
        .collect();
    let (place, _) = reference_lake();
    let mut expected = BTreeSet::from(["cassandra.carbon_daily".to_owned()]);
    for direction in ["--up", "--down"] {
        let told = place.medallion(&["lineage", "gold.carbon_daily", direction, "--as", "json"]).json();
        // what is decided over bronze stands for bronze
        expected.extend(told["nodes"].as_array().unwrap().iter().map(|name| {
            name.as_str().unwrap().replace("accepted.", "bronze.").replace("versions.", "bronze.")
        }));
    }
    assert_eq!(lit, expected);
    let faded = "getComputedStyle(document.querySelector('#overview .node:not(.on)')).opacity";
    browser.value("new Promise(done => setTimeout(() => done(1), 300))");
    assert!(browser.text(faded).parse::<f64>().unwrap() < 0.5);
    browser.click(node);
    assert_eq!(browser.text("location.hash"), "#gold.carbon_daily");
    assert!(
        browser.value("document.getElementById('gold.carbon_daily').checkVisibility()").as_bool().unwrap()
    );
    assert!(!browser.value("document.getElementById('overview').checkVisibility({contentVisibilityAuto: true}) && !document.getElementById('overview').hidden").as_bool().unwrap());
    // boxes do not touch each other, and names stay in their boxes
    go(&mut browser, "overview");
    let crossing = browser.texts(
        "(() => { const nodes = [...document.querySelectorAll('#overview .node')]; const out = []; \
         const box = n => n.querySelector('.box').getBoundingClientRect(); \
         nodes.forEach((a, i) => { const A = box(a), T = a.querySelector('text').getBoundingClientRect(); \
           if (T.right > A.right) out.push(a.dataset.node + ' is wider than its box'); \
           nodes.slice(i + 1).forEach(b => { const B = box(b); \
             if (A.left < B.right && B.left < A.right && A.top < B.bottom && B.top < A.bottom) out.push(a.dataset.node + ' ' + b.dataset.node); }); }); \
         return out; })()",
    );
    assert_eq!(crossing, Vec::<String>::new());
    // the same in words
    let row = browser.text("[...document.querySelectorAll('#overview details tbody tr')].find(r => r.cells[0].textContent === 'gold.revenue_monthly').textContent");
    assert_eq!(row, "gold.revenue_monthlysilver.billing_monthlycassandra.revenue_monthly");
}

/// The tooltips of a plot's bars.
fn tooltips(browser: &mut Browser, id: &str) -> Vec<String> {
    let id = json!(id);
    browser.texts(&format!(
        "[...document.getElementById({id}).querySelectorAll('.bar')].map(bar => bar.querySelector('title').textContent)"
    ))
}

#[test]
fn plots_show_what_the_tables_hold() {
    let folder = tempfile::tempdir().unwrap();
    let place = sensors();
    place.run();
    let file = site_of(&place, &folder.path().join("site"));
    let mut browser = Browser::start();
    browser.open(&file);
    assert_sound(&mut browser, &file);
    let expected = |query: &str| -> Vec<String> {
        let rows = place.medallion(&["--format", "csv", "sql", query]).ok();
        rows.lines().skip(1).map(|row| row.replacen(',', ": ", 1)).collect()
    };
    go(&mut browser, "silver.readings");
    assert_eq!(
        tooltips(&mut browser, "rows.silver.readings"),
        expected("select date, count(*) from silver.readings group by date order by date")
    );
    go(&mut browser, "trends");
    let by_error = "select cast(date as text) || ' ' || error_type, count(*) from quarantine.logger_exports \
                    group by date, error_type";
    let (mut told, mut by_error) = (tooltips(&mut browser, "quarantine.logger_exports"), expected(by_error));
    by_error.sort();
    told.sort();
    assert_eq!(told, by_error);
    assert!(told.len() > 2);
    // a device without a clock does not make the plot begin in 1970, and is not kept quiet
    let refused =
        browser.text("document.getElementById('quarantine.readings').querySelector('.note').textContent");
    assert!(
        refused.contains("17 of 1,712 landed records") && refused.contains("Outside of the plot: "),
        "{refused}"
    );
    let bars = tooltips(&mut browser, "quarantine.readings");
    assert!(!bars.is_empty() && bars.iter().all(|bar| bar.starts_with("2025-03-0")), "{bars:?}");
    // bars stand on the axis, inside of the picture, and labels do not touch
    let flaws = browser.texts(
        "(() => { const out = []; for (const plot of document.querySelectorAll('#trends .plot')) { \
           const svg = plot.querySelector('svg').getBoundingClientRect(); \
           for (const bar of plot.querySelectorAll('.bar')) { const b = bar.getBoundingClientRect(); \
             if (b.left < svg.left || b.right > svg.right || b.top < svg.top || b.bottom > svg.bottom) out.push(plot.id + ' a bar leaves it'); } \
           const labels = [...plot.querySelectorAll('svg text')].map(t => [t.textContent, t.getBoundingClientRect()]); \
           labels.forEach(([name, A], i) => { \
             if (A.left < svg.left - 1 || A.right > svg.right + 1 || A.bottom > svg.bottom + 1) out.push(plot.id + ' ' + name + ' leaves it'); \
             labels.slice(i + 1).forEach(([other, B]) => { \
               if (A.left < B.right - 1 && B.left < A.right - 1 && A.top < B.bottom - 2 && B.top < A.bottom - 2) out.push(plot.id + ': ' + name + ' / ' + other); }); }); } \
         return out; })()",
    );
    assert_eq!(flaws, Vec::<String>::new());
    // the same numbers as text
    let shown = browser.texts(
        "[...document.getElementById('rows.silver.readings').querySelectorAll('tbody tr')].map(r => r.cells[0].textContent + ': ' + r.cells[1].textContent)",
    );
    let rows = expected("select date, count(*) from silver.readings group by date order by date");
    assert!(rows.iter().all(|row| shown.contains(row)), "{shown:?}");
}

#[test]
fn amounts_lateness_and_durations_are_those_of_the_ledger() {
    let place = mini::place();
    place.edit(
        "sql/bronze/readings.toml",
        "event_time = \"at\"\n",
        "event_time = \"at\"\nwatermark_delay = \"2 hours\"\n",
    );
    for batch in mini::batches() {
        place.land(&batch);
        place.run();
    }
    // nearly two days behind, not behind, nearly one day behind
    let late = [mini::reading("90", 1, "8.25"), mini::reading("91", 3, "0.5"), mini::reading("92", 2, "1")];
    place.land(&[mini::readings("late.jsonl", &late)]);
    place.run();
    let folder = tempfile::tempdir().unwrap();
    let file = site_of(&place, folder.path());
    let mut browser = Browser::start();
    browser.open(&file);
    assert_sound(&mut browser, &file);
    go(&mut browser, "trends");
    let sums = place.sql(
        "select cast(date as text) as date, cast(cast(sum(amount) as decimal(18, 2)) as text) as amount from silver.readings group by date order by date",
    );
    let expected: Vec<String> = sums
        .iter()
        .map(|row| format!("{}: {}", row["date"].as_str().unwrap(), row["amount"].as_str().unwrap()))
        .collect();
    assert!(expected.len() >= 2, "{expected:?}");
    assert_eq!(tooltips(&mut browser, "amount.readings.amount"), expected);
    let late = place.medallion(&["--format", "json", "status"]).json();
    let late =
        late.as_array().unwrap().iter().find(|table| table["table"] == "bronze.readings").unwrap()["late"]
            .clone();
    let told = tooltips(&mut browser, "lateness.readings");
    let sum: i64 = told.iter().map(|bar| bar.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum();
    assert!(sum > 0 && late == sum, "{late} {told:?}");
    assert!(told.iter().all(|bar| bar.contains("up to 7 days") || bar.contains("up to 1 day")), "{told:?}");
    go(&mut browser, "runs");
    let runs = place.medallion(&["--format", "json", "runs", "list"]).json();
    let runs = runs.as_array().unwrap();
    let durations = tooltips(&mut browser, "runs.durations");
    assert_eq!(durations.len(), runs.len());
    for run in runs {
        let seconds = (run["finished"].as_i64().unwrap() - run["started"].as_i64().unwrap()) as f64 / 1e6;
        let bar = format!("run {}: {seconds:.2} s", run["run_id"]);
        assert!(durations.contains(&bar), "{bar} is not in {durations:?}");
    }
    assert!(
        browser
            .text("document.getElementById('runs').textContent")
            .contains("Balance of the whole lake holds")
    );
}

/// Texts that break out of a page that is made carelessly.
const HOSTILE: [&str; 4] = [
    "</script><script>window.broken = 1</script>",
    "\\\"><img src=x onerror=window.broken=2>",
    "</style></title></svg><b id=broken>bold</b>",
    "javascript:window.broken=3",
];

#[test]
fn hostile_texts_are_texts() {
    let place = mini::place();
    let hostile = HOSTILE.join(" ");
    place.edit(
        "sql/bronze/readings.toml",
        "description = \"What was measured.\"",
        &format!("description = \"{hostile}\""),
    );
    place.edit(
        "sql/bronze/readings.toml",
        "reason = \"`amount` is negative\"",
        &format!("reason = \"{hostile}\""),
    );
    place.edit(
        "sql/bronze/readings.toml",
        "{ name = \"note\", type = \"text\" }",
        &format!("{{ name = \"note\", type = \"text\", description = \"{hostile}\" }}"),
    );
    place.edit("sql/gold/total.toml", "description = \"In all.\"", &format!("description = \"{hostile}\""));
    place.edit("medallion.toml", "name = \"mini\"", &format!("name = \"mini\"\ndescription = \"{hostile}\""));
    place.edit(
        "sql/gold/total.sql",
        "select site, cast",
        "-- </pre></code><script>window.broken = 4</script>\nselect site, cast",
    );
    crate::support::write(
        &place.project.join("sql/checks/odd.sql"),
        b"select '<script>window.broken = 5</script>' from gold.total where amount > 1000000",
    );
    crate::support::write(
        &place.project.join("sql/checks/odd.toml"),
        format!("description = \"{hostile}\"").as_bytes(),
    );
    // data: a value that an example shows, an unknown error, a file's name
    let site = "</td><script>window.broken = 6</script>";
    let line = format!(
        "{{\"id\":\"1\",\"at\":\"2025-08-01T10:00:00Z\",\"site\":\"{site}\",\"amount\":2}}\n{hostile}\n"
    );
    place.land(&[Landed::new("readings/<img src=x onerror=window.broken=7>.jsonl", line)]);
    crate::support::write(
        &place.project.join("cql/tables/total.cql"),
        b"create table total (site text, amount decimal, primary key ((site)))",
    );
    crate::support::write(
        &place.project.join("cql/questions/sums.cql"),
        b"select site, amount from total where site = :site",
    );
    crate::support::write(
        &place.project.join("cql/questions/sums.toml"),
        format!("title = \"{hostile}\"\n[parameters.site]\ntype = \"text\"\ndescription = \"{hostile}\"\ndefault = \"select min(site) from gold.total\"").as_bytes(),
    );
    place.run();
    let folder = tempfile::tempdir().unwrap();
    let file = site_of(&place, folder.path());
    let mut browser = Browser::start();
    browser.open(&file);
    assert_sound(&mut browser, &file);
    assert_eq!(browser.number("document.querySelectorAll('script').length"), 1.0);
    assert_eq!(browser.number("document.querySelectorAll('img, b, iframe').length"), 0.0);
    for id in views(&mut browser) {
        go(&mut browser, &id);
        browser.press("/");
        browser.write("script");
        browser.press("Escape");
    }
    assert!(browser.value("window.broken").is_null());
    let lead = browser.text("document.querySelector('#overview .lead').textContent");
    assert_eq!(lead, hostile.replace("\\\"", "\""));
    assert!(browser.text("document.getElementById('question.sums').textContent").contains(site));
    assert!(
        browser
            .text("document.getElementById('gold.total').textContent")
            .contains("</pre></code><script>window.broken = 4")
    );
    // and where something did get in, the policy lets nothing run or load
    browser.value(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.broken = 8\"><iframe src=\"https://example.com\"></iframe>'); \
         const s = document.createElement('script'); s.textContent = 'window.broken = 9'; document.body.append(s); 1",
    );
    browser.value("new Promise(done => setTimeout(() => done(1), 300))");
    assert!(browser.value("window.broken").is_null());
    assert!(!browser.complaints().is_empty(), "the policy refuses");
}

/// Texts with too little contrast to what is behind them (WCAG AA), of all that is seen.
const FAINT: &str = r"(() => {
  const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const out = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
    if (element.matches('script, style, .unseen, .unseen *, title')) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) out.add(`${ratio.toFixed(2)} ${element.tagName}.${element.getAttribute('class')} ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return [...out];
})()";

#[test]
fn it_is_read_on_a_phone_and_in_the_dark() {
    let folder = tempfile::tempdir().unwrap();
    let file = reference_site(&folder);
    let mut browser = Browser::start();
    for (width, scheme) in [(400, "light"), (400, "dark"), (1280, "dark"), (1280, "light")] {
        browser.size(width, 800);
        browser.scheme(scheme);
        browser.open(&file);
        for id in views(&mut browser) {
            go(&mut browser, &id);
            let wide = browser.number("document.documentElement.scrollWidth");
            assert!(wide <= f64::from(width), "{id} is {wide} wide where {width} are seen");
            assert_eq!(browser.texts(FAINT), Vec::<String>::new(), "{id}, {scheme}");
        }
    }
    // the contents open by a box that is ticked
    browser.size(400, 800);
    browser.open(&file);
    let is_open = "document.querySelector('.side').checkVisibility()";
    assert_eq!(browser.value(is_open), false);
    browser.click(".menu");
    assert_eq!(browser.value(is_open), true);
    browser.click(".side a[href='#contract']");
    assert_eq!(browser.value(is_open), false);
    assert_eq!(browser.text("location.hash"), "#contract");
}

#[test]
fn without_a_script_all_of_it_is_one_document() {
    let folder = tempfile::tempdir().unwrap();
    let file = reference_site(&folder);
    let mut browser = Browser::start();
    browser.allow_scripts(false);
    browser.open(&file);
    let all = views(&mut browser);
    assert_eq!(
        browser
            .number("[...document.querySelectorAll('.view')].filter(view => view.checkVisibility()).length"),
        all.len() as f64
    );
    assert_eq!(
        browser.value("document.getElementById('search').checkVisibility()"),
        false,
        "a search that does nothing"
    );
    browser.size(400, 800);
    browser.click(".menu");
    assert_eq!(browser.value("document.querySelector('.side').checkVisibility()"), true);
    assert!(browser.number("document.documentElement.scrollWidth") <= 400.0);
}

#[test]
fn without_a_lake_it_says_so_and_makes_none() {
    let place = mini::place();
    let folder = tempfile::tempdir().unwrap();
    fs::remove_dir(&place.landing).unwrap();
    let file = site_of(&place, folder.path());
    assert!(!place.lake.try_exists().unwrap());
    let mut browser = Browser::start();
    browser.open(&file);
    assert_sound(&mut browser, &file);
    for id in ["overview", "runs", "trends"] {
        go(&mut browser, id);
        let told = browser.text(&format!("document.getElementById('{id}').innerText"));
        assert!(told.contains("There is no lake yet"), "{id}: {told}");
    }
    go(&mut browser, "silver.readings");
    assert!(browser.text("document.getElementById('silver.readings').innerText").contains("site_name"));
    assert_eq!(browser.number("document.querySelectorAll('.plot').length"), 0.0);
    // a lake that is there can be left out
    fs::create_dir(&place.landing).unwrap();
    place.land(&mini::batches()[0]);
    place.run();
    let alone = folder.path().join("alone");
    place.medallion(&["docs", "--html", alone.to_str().unwrap(), "--no-lake"]).ok();
    assert_eq!(fs::read_to_string(alone.join("index.html")).unwrap(), fs::read_to_string(&file).unwrap());
}

#[test]
fn the_same_lake_gives_the_same_page_and_the_markdown_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (place, _) = reference_lake();
    let pages: BTreeMap<&str, String> = ["a", "b"]
        .into_iter()
        .map(|name| (name, fs::read_to_string(site_of(place, &folder.path().join(name))).unwrap()))
        .collect();
    assert!(pages["a"] == pages["b"], "two pages of one lake differ");
    assert!(pages["a"].len() < 3_000_000, "{} bytes", pages["a"].len());
    assert!(!pages["a"].contains(&*place.lake.to_string_lossy()), "where the lake lies is nobody's business");
    assert!(place.medallion(&["docs"]).ok().starts_with("# cloud_analytics: data dictionary\n"));
    place.medallion(&["docs", "--no-lake"]).expect(2);
    let taken = folder.path().join("taken");
    fs::write(&taken, "a file").unwrap();
    place
        .medallion(&["docs", "--html", taken.to_str().unwrap()])
        .expect(2)
        .tells(&["taken", "another folder"]);
}
