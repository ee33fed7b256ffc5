DO $$ DECLARE s text; BEGIN UPDATE vault SET id = id RETURNING secret INTO s; RAISE NOTICE '%', s; END $$
