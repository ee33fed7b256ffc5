DO $$ BEGIN PERFORM set_config('row_security', 'off', false); END $$
