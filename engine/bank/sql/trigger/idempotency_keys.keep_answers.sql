CREATE TRIGGER keep_answers BEFORE UPDATE ON bank.idempotency_keys FOR EACH ROW EXECUTE FUNCTION bank.keep_answers();
