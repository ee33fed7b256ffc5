DO $$ BEGIN SET LOCAL role = postgres; END $$
