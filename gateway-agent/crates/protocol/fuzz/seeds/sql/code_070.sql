DO $$ DECLARE s text; BEGIN s := reveal_pl(1); RAISE NOTICE '%', s; END $$
