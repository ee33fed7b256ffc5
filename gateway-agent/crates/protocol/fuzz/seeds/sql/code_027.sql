DO $$ BEGIN LOCK TABLE orders; END $$
