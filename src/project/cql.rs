//! The parts of CQL that a project's files use: one `CREATE TABLE`, and questions with `:named` markers.
//!
//! The DDL tells the order in which Cassandra returns rows, so that gold can answer a question in the same order.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A serving table as its DDL declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServingTable {
    pub name: String,
    /// Name and CQL type, in declared order.
    pub columns: Vec<(String, String)>,
    pub partition_key: Vec<String>,
    /// Name, and whether the order is descending.
    pub clustering: Vec<(String, bool)>,
    /// Seconds that a row lives after it was written (`default_time_to_live`); none: for good.
    pub ttl: Option<u32>,
    /// The other options behind `with`, such as `compaction`.
    pub options: BTreeMap<String, TableOption>,
}

/// The value of a table's option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableOption {
    /// A number or word, as it is written.
    Word(String),
    /// A literal, without its quotes.
    Text(String),
    Map(BTreeMap<String, String>),
}

impl fmt::Display for TableOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &String| format!("'{}'", text.replace('\'', "''"));
        match self {
            TableOption::Word(word) => f.write_str(word),
            TableOption::Text(text) => f.write_str(&quoted(text)),
            TableOption::Map(entries) => {
                let entries =
                    entries.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)));
                write!(f, "{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl ServingTable {
    /// The columns of the primary key, those of the partition key first.
    pub fn key(&self) -> impl Iterator<Item = &String> {
        self.partition_key.iter().chain(self.clustering.iter().map(|(name, _)| name))
    }

    /// The CQL type of a column.
    pub fn column_type(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|(name, _)| name == column).map(|(_, kind)| kind.as_str())
    }
}

/// Words that name nothing without quotes.
const RESERVED: [&str; 62] = [
    "add",
    "allow",
    "alter",
    "and",
    "apply",
    "asc",
    "authorize",
    "batch",
    "begin",
    "by",
    "columnfamily",
    "create",
    "default",
    "delete",
    "desc",
    "describe",
    "drop",
    "entries",
    "execute",
    "from",
    "full",
    "grant",
    "if",
    "in",
    "index",
    "infinity",
    "insert",
    "into",
    "is",
    "keyspace",
    "limit",
    "materialized",
    "mbean",
    "mbeans",
    "modify",
    "nan",
    "norecursive",
    "not",
    "null",
    "of",
    "on",
    "or",
    "order",
    "primary",
    "rename",
    "replace",
    "revoke",
    "schema",
    "select",
    "set",
    "table",
    "to",
    "token",
    "truncate",
    "unlogged",
    "unset",
    "update",
    "use",
    "using",
    "view",
    "where",
    "with",
];

/// A name as a statement has to write it: in quotes where it would be read as another, or not as a name at all.
pub fn identifier(name: &str) -> Cow<'_, str> {
    let mut letters = name.chars();
    let is_plain = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name);
    match is_plain {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!("\"{}\"", name.replace('"', "\"\""))),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Mark(char),
    /// A literal, without its quotes.
    Text(String),
}

/// Words, marks and string literals, without comments.
fn tokens(text: &str) -> Vec<Token> {
    placed_tokens(text).into_iter().map(|(_, token)| token).collect()
}

/// The same, with the byte at which each begins.
fn placed_tokens(text: &str) -> Vec<(usize, Token)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let place = text.len() - rest.len();
        if rest.starts_with("--") || rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/").map_or("", |(_, after)| after);
        } else if first == '\'' {
            let (literal, behind) = literal(&rest[1..]);
            found.push((place, Token::Text(literal)));
            rest = behind;
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((place, Token::Word(rest[..end].to_lowercase())));
            rest = &rest[end..];
        } else {
            if !first.is_whitespace() {
                found.push((place, Token::Mark(first)));
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// The text up to the closing quote, and what is behind it; a quote inside is written twice.
fn literal(mut rest: &str) -> (String, &str) {
    let mut text = String::new();
    while let Some((before, behind)) = rest.split_once('\'') {
        text.push_str(before);
        rest = behind;
        match rest.strip_prefix('\'') {
            Some(behind) => {
                text.push('\'');
                rest = behind;
            }
            None => return (text, rest),
        }
    }
    (text + rest, "")
}

/// Reads `CREATE TABLE [IF NOT EXISTS] name (column type, …, PRIMARY KEY ((…), …)) [WITH …]`.
///
/// # Errors
/// What is missing.
pub fn parse_table(text: &str) -> Result<ServingTable, String> {
    let tokens = tokens(text);
    let word = |index: usize| match tokens.get(index) {
        Some(Token::Word(word)) => word.as_str(),
        _ => "",
    };
    if word(0) != "create" || word(1) != "table" {
        return Err("the file must hold one `create table` statement".to_owned());
    }
    let mut at = if word(2) == "if" { 5 } else { 2 };
    let mut name = word(at).to_owned();
    at += 1;
    if tokens.get(at) == Some(&Token::Mark('.')) {
        name = word(at + 1).to_owned();
        at += 2;
    }
    if tokens.get(at) != Some(&Token::Mark('(')) {
        return Err("the columns are missing".to_owned());
    }
    let mut table = ServingTable {
        name,
        columns: Vec::new(),
        partition_key: Vec::new(),
        clustering: Vec::new(),
        ttl: None,
        options: BTreeMap::new(),
    };
    let mut end = at + 1;
    for item in split_items(&tokens[at + 1..], &mut end) {
        match item {
            [Token::Word(first), Token::Word(second), Token::Mark('('), rest @ ..]
                if first == "primary" && second == "key" =>
            {
                read_primary_key(rest, &mut table);
            }
            [Token::Word(column), kind @ ..] => {
                table.columns.push((column.clone(), render(kind)));
            }
            _ => return Err("a column must be a name and a type".to_owned()),
        }
    }
    let options = &tokens[end.min(tokens.len())..];
    read_clustering_order(options, &mut table);
    table.options = read_options(options);
    // 0 is none
    let ttl = match table.options.remove("default_time_to_live") {
        Some(TableOption::Word(seconds)) => seconds.parse().ok(),
        _ => None,
    };
    table.ttl = ttl.filter(|seconds| *seconds > 0);
    if table.partition_key.is_empty() {
        return Err("the primary key is missing".to_owned());
    }
    Ok(table)
}

/// The comma-separated items up to the closing parenthesis; `end` becomes its position.
fn split_items<'a>(tokens: &'a [Token], end: &mut usize) -> Vec<&'a [Token]> {
    let mut items = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark('(' | '<') => depth += 1,
            Token::Mark(')') if depth == 0 => {
                items.push(&tokens[start..index]);
                *end += index;
                return items;
            }
            Token::Mark(')' | '>') => depth -= 1,
            Token::Mark(',') if depth == 0 => {
                items.push(&tokens[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    *end += tokens.len();
    items
}

fn read_primary_key(tokens: &[Token], table: &mut ServingTable) {
    let mut depth = 1;
    let mut is_partition_key = true;
    for token in tokens {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => {
                depth -= 1;
                is_partition_key = false;
            }
            Token::Mark(',') if depth == 1 => is_partition_key = false,
            Token::Word(column) if is_partition_key => table.partition_key.push(column.clone()),
            Token::Word(column) => table.clustering.push((column.clone(), false)),
            _ => {}
        }
    }
}

/// `… CLUSTERING ORDER BY (usage_date DESC, service ASC) …`
fn read_clustering_order(tokens: &[Token], table: &mut ServingTable) {
    for pair in tokens.windows(2) {
        if let [Token::Word(column), Token::Word(order)] = pair
            && order == "desc"
        {
            for clustering in &mut table.clustering {
                clustering.1 |= clustering.0 == *column;
            }
        }
    }
}

/// `with … compaction = {'class': 'LeveledCompactionStrategy'} and default_time_to_live = 7776000 …`
fn read_options(tokens: &[Token]) -> BTreeMap<String, TableOption> {
    let is_mark = |token: &Token, mark: char| *token == Token::Mark(mark);
    let mut options = BTreeMap::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        let [Token::Word(name), Token::Mark('=')] = pair else {
            continue;
        };
        let behind = &tokens[at + 2..];
        let value = match behind {
            [Token::Text(text), ..] => TableOption::Text(text.clone()),
            [Token::Mark('{'), entries @ ..] => {
                let end = entries.iter().position(|token| is_mark(token, '}')).unwrap_or(entries.len());
                let part = |tokens: &[Token]| match tokens {
                    [Token::Text(text)] => text.clone(),
                    tokens => render(tokens),
                };
                let pairs = entries[..end].split(|token| is_mark(token, ',')).filter_map(|entry| {
                    let colon = entry.iter().position(|token| is_mark(token, ':'))?;
                    Some((part(&entry[..colon]), part(&entry[colon + 1..])))
                });
                TableOption::Map(pairs.collect())
            }
            _ => {
                let is_end = |token: &Token| *token == Token::Word("and".to_owned()) || is_mark(token, ';');
                let end = behind.iter().position(is_end).unwrap_or(behind.len());
                TableOption::Word(render(&behind[..end]))
            }
        };
        options.insert(name.clone(), value);
    }
    options
}

fn render(tokens: &[Token]) -> String {
    let part = |token: &Token| match token {
        Token::Word(word) => word.clone(),
        Token::Mark(mark) => mark.to_string(),
        Token::Text(_) => String::new(),
    };
    tokens.iter().map(part).collect()
}

/// The marker that stands for the time of the gold commit.
pub const COMMITTED_AT: &str = "committed_at";

/// How a mart is published: the `INSERT` of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    pub table: String,
    /// Column and marker, in written order.
    pub values: Vec<(String, String)>,
    /// The statement as it is executed.
    pub text: String,
}

/// Reads `INSERT INTO name (column, …) VALUES (:marker, …) USING TIMESTAMP :committed_at`.
///
/// # Errors
/// What is missing or may not be there.
pub fn parse_insert(text: &str) -> Result<Insert, String> {
    let tokens = tokens(text);
    let body = match tokens.as_slice() {
        [body @ .., Token::Mark(';')] => body,
        body => body,
    };
    let is_word = |token: Option<&Token>, word: &str| token == Some(&Token::Word(word.to_owned()));
    if !is_word(body.first(), "insert") || !is_word(body.get(1), "into") {
        return Err("the file must hold one `insert into` statement".to_owned());
    }
    let (Some(Token::Word(table)), Some(Token::Mark('('))) = (body.get(2), body.get(3)) else {
        return Err("write `insert into table (…)`, without a keyspace".to_owned());
    };
    let mut end = 4;
    let columns = split_items(&body[4..], &mut end);
    if !is_word(body.get(end + 1), "values") || body.get(end + 2) != Some(&Token::Mark('(')) {
        return Err("`values (…)` is missing behind the columns".to_owned());
    }
    let mut last = end + 3;
    let markers = split_items(&body[end + 3..], &mut last);
    let using = body.get(last + 1..).unwrap_or_default();
    let is_timed = matches!(using, [Token::Word(a), Token::Word(b), Token::Mark(':'), Token::Word(marker)]
        if a == "using" && b == "timestamp" && marker == COMMITTED_AT);
    if !is_timed {
        return Err(format!("the statement must end with `using timestamp :{COMMITTED_AT}`"));
    }
    if columns.len() != markers.len() {
        return Err(format!("{} columns and {} values", columns.len(), markers.len()));
    }
    let mut values = Vec::new();
    for (column, marker) in columns.iter().zip(&markers) {
        match (column, marker) {
            ([Token::Word(column)], [Token::Mark(':'), Token::Word(marker)]) => {
                values.push((column.clone(), marker.clone()));
            }
            ([Token::Word(column)], _) => {
                return Err(format!("the value of `{column}` must be a marker, such as `:{column}`"));
            }
            _ => return Err("a column must be a plain name".to_owned()),
        }
    }
    let text = text.trim().trim_end_matches(';').trim_end().to_owned();
    Ok(Insert { table: table.clone(), values, text })
}

/// The columns of the partition key that the question does not fix by `= :marker` or `in`.
pub fn unrestricted<'a>(text: &str, table: &'a ServingTable) -> Vec<&'a str> {
    let tokens = tokens(text);
    let is_where = |token: &Token| *token == Token::Word("where".to_owned());
    let conditions = tokens.iter().position(is_where).map_or(&[][..], |at| &tokens[at..]);
    let is_fixed = |column: &str| {
        conditions.windows(2).any(|two| match two {
            [Token::Word(name), Token::Mark('=')] => name == column,
            [Token::Word(name), Token::Word(word)] => name == column && word == "in",
            _ => false,
        })
    };
    table.partition_key.iter().map(String::as_str).filter(|column| !is_fixed(column)).collect()
}

/// A question: one `SELECT` over one serving table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    pub table: String,
    pub markers: BTreeSet<String>,
    /// The marker behind `limit`.
    pub limit: Option<String>,
    /// The same query for gold: `$named` markers, the mart's full name, Cassandra's order made explicit.
    pub gold_sql: String,
}

/// The table that a question reads, where it says so.
pub fn table_of(text: &str) -> Option<String> {
    let after_from = text.split_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("from")).nth(1)?;
    Some(after_from.rsplit('.').next()?.trim_end_matches(';').to_lowercase())
}

/// A statement that names the keyspace of its table. A node that starts again prepares what it remembers without the keyspace
/// that a session uses, and warns of each statement that it can't.
pub fn in_keyspace(text: &str, keyspace: &str) -> String {
    let tokens = placed_tokens(text);
    let place = tokens.iter().enumerate().find_map(|(at, (_, token))| {
        let Token::Word(word) = token else { return None };
        let is_before_table = matches!(word.as_str(), "from" | "into") || at == 0 && word == "update";
        let (place, Token::Word(_)) = tokens.get(at + 1)? else { return None };
        let is_bare = !matches!(tokens.get(at + 2), Some((_, Token::Mark('.'))));
        (is_before_table && is_bare).then_some(*place)
    });
    match place {
        Some(place) => format!("{}{}.{}", &text[..place], identifier(keyspace), &text[place..]),
        None => text.to_owned(),
    }
}

/// Reads a question, and writes it for gold.
///
/// # Errors
/// What a question may not contain.
pub fn parse_select(text: &str, tables: &[ServingTable]) -> Result<Select, String> {
    let body: String = text
        .lines()
        .map(|line| line.split_once("--").map_or(line, |(code, _)| code))
        .collect::<Vec<_>>()
        .join("\n");
    let body = body.trim().trim_end_matches(';').trim();
    let lower = body.to_lowercase();
    if !lower.starts_with("select") {
        return Err("a question is one `select` statement".to_owned());
    }
    if lower.contains("allow filtering") {
        return Err("`allow filtering` reads every partition; add a table for the question".to_owned());
    }
    let after_from = lower
        .split_whitespace()
        .skip_while(|word| *word != "from")
        .nth(1)
        .ok_or("the question reads no table")?;
    let name = after_from.rsplit('.').next().unwrap_or(after_from).to_owned();
    let table = tables.iter().find(|table| table.name == name).ok_or_else(|| {
        let known: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        format!("the table `{name}` has no file in `cql/tables`; known: {}", known.join(", "))
    })?;
    let (with_markers, markers) = name_markers(body);
    let from = after_from;
    let at = with_markers.to_lowercase().find(&format!("from {from}"));
    let gold = match at {
        Some(at) => {
            format!("{}from gold.{name}{}", &with_markers[..at], &with_markers[at + 5 + from.len()..])
        }
        None => return Err("write `from table` on one line".to_owned()),
    };
    let limit = tokens(body).windows(3).rev().find_map(|three| match three {
        [Token::Word(word), Token::Mark(':'), Token::Word(marker)] if word == "limit" => {
            markers.iter().find(|known| known.eq_ignore_ascii_case(marker)).cloned()
        }
        _ => None,
    });
    Ok(Select { markers, limit, gold_sql: with_order(&gold, table), table: name })
}

/// `:name` becomes `$name`, outside of string literals.
fn name_markers(text: &str) -> (String, BTreeSet<String>) {
    let mut markers = BTreeSet::new();
    let mut written = String::with_capacity(text.len());
    let mut in_text = false;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        in_text ^= first == '\'';
        if first == ':' && !in_text {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            markers.insert(rest[..end].to_owned());
            written.push('$');
        } else {
            written.push(first);
        }
    }
    (written, markers)
}

/// Cassandra returns a partition's rows in clustering order; SQL has to say so, before a limit.
fn with_order(sql: &str, table: &ServingTable) -> String {
    if table.clustering.is_empty() || sql.to_lowercase().contains("order by") {
        return sql.to_owned();
    }
    let order: Vec<String> = table
        .clustering
        .iter()
        .map(|(column, descending)| match descending {
            true => format!("{column} desc"),
            false => column.clone(),
        })
        .collect();
    let order = order.join(", ");
    match sql.to_lowercase().rfind("limit") {
        Some(at) => format!("{}order by {order}\n{}", &sql[..at], &sql[at..]),
        None => format!("{sql}\norder by {order}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DDL: &str = "-- one row per day\ncreate table if not exists cost_anomaly (\n org_id text, usage_date date,\n \
        service text, events set<text>, by_role map<text, int>,\n primary key ((org_id), usage_date, service)\n) \
        with clustering order by (usage_date desc, service asc) and comment = 'a (b';";

    #[test]
    fn names_are_quoted_where_they_have_to_be() {
        for (name, written) in [
            ("day", "day"),
            ("day_2", "day_2"),
            ("Extra Col", "\"Extra Col\""),
            ("Day", "\"Day\""),
            ("2nd", "\"2nd\""),
            ("order", "\"order\""),
            ("a\"b", "\"a\"\"b\""),
            ("é", "\"é\""),
            ("", "\"\""),
        ] {
            assert_eq!(identifier(name), written);
        }
    }

    #[test]
    fn reads_keys_order_and_collections() {
        let table = parse_table(DDL).unwrap();
        assert_eq!(table.name, "cost_anomaly");
        assert_eq!(table.partition_key, ["org_id"]);
        let clustering = [("usage_date".to_owned(), true), ("service".to_owned(), false)];
        assert_eq!(table.clustering, clustering);
        assert_eq!(table.columns[3].1, "set<text>");
        assert_eq!(table.columns[4].1, "map<text,int>");
        assert!(parse_table("create table x (a int)").is_err());
    }

    #[test]
    fn reads_the_time_to_live() {
        assert_eq!(parse_table(DDL).unwrap().ttl, None);
        let with = |seconds: u32| DDL.replace(';', &format!(" and default_time_to_live = {seconds};"));
        assert_eq!(parse_table(&with(60)).unwrap().ttl, Some(60));
        assert_eq!(parse_table(&with(0)).unwrap().ttl, None);
    }

    #[test]
    fn reads_the_other_options() {
        let table = parse_table(
            "create table t (a text, primary key ((a))) with clustering order by (a desc) and gc_grace_seconds = 60 and \
             compaction = {'class': 'LeveledCompactionStrategy', 'sstable_size_in_mb': 320} and bloom_filter_fp_chance = 0.1 \
             and comment = 'it''s -- a {b}, and c = d';",
        )
        .unwrap();
        let written: Vec<String> =
            table.options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let expected = [
            "bloom_filter_fp_chance = 0.1",
            "comment = 'it''s -- a {b}, and c = d'",
            "compaction = {'class': 'LeveledCompactionStrategy', 'sstable_size_in_mb': '320'}",
            "gc_grace_seconds = 60",
        ];
        assert_eq!(written, expected);
    }

    #[test]
    fn an_insert_binds_every_value_and_its_time() {
        let text = "-- one row\nINSERT INTO t (a, b) values (:a, :other) using timestamp :committed_at;\n";
        let insert = parse_insert(text).unwrap();
        let values = [("a".to_owned(), "a".to_owned()), ("b".to_owned(), "other".to_owned())];
        assert_eq!((insert.table.as_str(), insert.values), ("t", values.to_vec()));
        assert!(insert.text.ends_with(":committed_at"), "{}", insert.text);
        for (wrong, told) in [
            ("update t set a = 1", "insert into"),
            ("insert into ks.t (a) values (:a) using timestamp :committed_at", "without a keyspace"),
            ("insert into t (a) values (:a)", "using timestamp"),
            ("insert into t (a) values (:a) using timestamp :now", "using timestamp"),
            ("insert into t (a) values (:a) using timestamp :committed_at and ttl 5", "using timestamp"),
            ("insert into t (a) values (1) using timestamp :committed_at", "must be a marker"),
            ("insert into t (a, b) values (:a) using timestamp :committed_at", "2 columns and 1 values"),
            ("insert into t (a) values (:a) if not exists", "using timestamp"),
            ("insert into t (a) values (:a) using timestamp :committed_at; drop table t", "using timestamp"),
        ] {
            let error = parse_insert(wrong).unwrap_err();
            assert!(error.contains(told), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_statement_is_told_its_keyspace() {
        let told = |text: &str| in_keyspace(text, "k");
        assert_eq!(told("select a\nfrom t where b = 'from x'"), "select a\nfrom k.t where b = 'from x'");
        assert_eq!(
            told("-- from gold\nINSERT INTO t (a) values (:a)"),
            "-- from gold\nINSERT INTO k.t (a) values (:a)"
        );
        assert_eq!(told("update t set a = ? where b = ?"), "update k.t set a = ? where b = ?");
        assert_eq!(
            told("delete from t using timestamp ? where a = ?"),
            "delete from k.t using timestamp ? where a = ?"
        );
        assert_eq!(told("select a from other.t"), "select a from other.t");
        assert_eq!(in_keyspace("select a from t", "Table"), "select a from \"Table\".t");
    }

    #[test]
    fn a_question_must_fix_the_partition_key() {
        let table = parse_table(DDL).unwrap();
        assert!(unrestricted("select * from t where org_id = :o", &table).is_empty());
        assert!(unrestricted("select * from t where org_id in (:a, :b)", &table).is_empty());
        assert_eq!(unrestricted("select * from t where usage_date = :d", &table), ["org_id"]);
        assert_eq!(unrestricted("select * from t where org_id > :d", &table), ["org_id"]);
    }

    #[test]
    fn a_question_reads_gold_in_cassandras_order() {
        let tables = [parse_table(DDL).unwrap()];
        let select =
            parse_select("select usage_date from cost_anomaly\nwhere org_id = :org_id limit :n;", &tables)
                .unwrap();
        assert_eq!(
            select.gold_sql,
            "select usage_date from gold.cost_anomaly\nwhere org_id = $org_id order by usage_date desc, service\nlimit $n"
        );
        assert_eq!(select.markers.into_iter().collect::<Vec<_>>(), ["n", "org_id"]);
        assert_eq!(select.limit.as_deref(), Some("n"));
        assert!(parse_select("select * from nothing", &tables).unwrap_err().contains("cost_anomaly"));
    }
}
