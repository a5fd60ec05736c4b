-- Only counters that no window needs any more may be deleted.
CREATE TRIGGER still_counts BEFORE DELETE ON ledger.counters FOR EACH ROW
    WHEN (OLD.bucket >= clock_timestamp() - make_interval(secs => 2 * OLD.window_s)) EXECUTE FUNCTION ledger.refuse_changes('running sum');
