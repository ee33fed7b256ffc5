DO $$ DECLARE s text; BEGIN SELECT loud INTO s FROM vault_vv LIMIT 1; RAISE NOTICE '%', s; END $$
