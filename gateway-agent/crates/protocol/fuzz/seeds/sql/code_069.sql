DO $$ DECLARE s text; BEGIN s := reveal(1); RAISE NOTICE '%', s; END $$
