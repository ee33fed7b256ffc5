DO $$ BEGIN SET search_path = pg_temp; END $$
