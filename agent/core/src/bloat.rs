//! How much of a table is empty space, estimated from the planner's statistics.
//!
//! It is the well-known estimate of check_postgres and of
//! <https://github.com/ioguix/pgsql-bloat-estimation>: the pages that the rows would need, packed as a fresh
//! copy of the table would be, against the pages that it has. It knows neither how columns are
//! aligned nor what was compressed, so it is right to within some percent for most tables.

/// Bytes of a page's header (`PageHeaderData`).
const PAGE_HEADER: f64 = 24.0;
/// A line pointer in a page.
const LINE_POINTER: f64 = 4.0;
/// `HeapTupleHeaderData` without the null bitmap.
const TUPLE_HEADER: f64 = 23.0;
/// `MAXALIGN` of every 64-bit platform.
const ALIGNMENT: f64 = 8.0;

/// What the statistics say about a table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TableWidths {
    /// Rows, as `pg_class.reltuples` estimates them.
    pub rows: f64,
    /// Pages that it has now.
    pub pages: f64,
    /// Bytes in a page, `block_size`.
    pub page_size: f64,
    /// In percent; 100 unless the table has its own.
    pub fill_factor: f64,
    /// Bytes of an average row: the sum over its columns of width times share of rows that have it.
    pub row_width: f64,
    /// Columns, dropped ones included: the null bitmap has a bit for each.
    pub columns: f64,
    /// Whether any column has nulls.
    pub has_nulls: bool,
}

/// Empty pages, in percent of all: from 0 to 100. `None` for a table without pages or rows that were
/// counted.
pub fn estimate_percent(table: &TableWidths) -> Option<f64> {
    if table.pages < 1.0 || table.rows < 0.0 {
        return None;
    }
    let bitmap = if table.has_nulls { ((7.0 + table.columns) / 8.0).floor() } else { 0.0 };
    let row = LINE_POINTER + aligned(TUPLE_HEADER + bitmap) + aligned(table.row_width.ceil());
    let room = (table.page_size - PAGE_HEADER) * table.fill_factor / 100.0;
    let rows_in_page = (room / row).floor().max(1.0);
    let needed = (table.rows / rows_in_page).ceil();
    Some(((table.pages - needed) / table.pages * 100.0).clamp(0.0, 100.0))
}

fn aligned(bytes: f64) -> f64 {
    (bytes / ALIGNMENT).ceil() * ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two int4 columns: PostgreSQL puts 226 such rows into a page of 8 KiB.
    const NARROW: TableWidths = TableWidths {
        rows: 22_600.0,
        pages: 100.0,
        page_size: 8192.0,
        fill_factor: 100.0,
        row_width: 8.0,
        columns: 2.0,
        has_nulls: false,
    };

    #[test]
    fn a_packed_table_has_no_bloat_and_half_its_rows_are_half_of_it() {
        assert_eq!(estimate_percent(&NARROW), Some(0.0));
        assert_eq!(estimate_percent(&TableWidths { rows: 11_300.0, ..NARROW }), Some(50.0));
        assert_eq!(estimate_percent(&TableWidths { rows: 0.0, ..NARROW }), Some(100.0));
    }

    #[test]
    fn a_fill_factor_is_no_bloat() {
        let loose = TableWidths { rows: 11_300.0, fill_factor: 50.0, ..NARROW };
        assert_eq!(estimate_percent(&loose), Some(0.0));
    }

    #[test]
    fn a_table_that_was_never_counted_has_no_estimate() {
        assert_eq!(estimate_percent(&TableWidths { rows: -1.0, ..NARROW }), None);
        assert_eq!(estimate_percent(&TableWidths { pages: 0.0, ..NARROW }), None);
    }

    #[test]
    fn a_row_wider_than_a_page_is_one_to_a_page() {
        let wide = TableWidths { rows: 100.0, row_width: 20_000.0, ..NARROW };
        assert_eq!(estimate_percent(&wide), Some(0.0));
    }
}
