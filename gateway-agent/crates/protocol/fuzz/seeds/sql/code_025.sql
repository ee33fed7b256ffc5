DO $$ BEGIN CREATE TABLE made (a int); END $$
